"""EDF and BDF files written field by field, so that each field can be a strange one."""

from dataclasses import dataclass

import numpy as np

LOW, HIGH = -500.0, 500.0


@dataclass(frozen=True)
class Signal:
    """Values in `unit`, at `rate` per second; `low` and `high` are its physical range."""

    label: str
    rate: float
    values: np.ndarray
    unit: str = "uV"
    low: object = LOW
    high: object = HIGH


def edf_head(records, signals, record_s=1, kind="", version=b"0       "):
    """The header of an EDF or BDF file.

    `signals`: label, unit, physical and digital range, and number of samples in a record of each.
    Source: Kemp and Olivan, European data format 'plus', 2003.
    """

    def cells(width, *values):
        return b"".join(str(value).encode("latin-1")[:width].ljust(width) for value in values)

    labels, units, *ranges, counts = zip(*signals, strict=True)
    nothing = [""] * len(signals)
    head = version + cells(80, "X X X X", "Startdate X X X X") + cells(8, "01.01.25", "00.00.00")
    head += cells(8, 256 * (len(signals) + 1)) + cells(44, kind) + cells(8, records, record_s)
    head += cells(4, len(signals)) + cells(16, *labels) + cells(80, *nothing) + cells(8, *units)
    head += b"".join(cells(8, *values) for values in ranges)
    return head + cells(80, *nothing) + cells(8, *counts) + cells(32, *nothing)


def write_edf(
    path,
    signals,
    annotations=(),
    *,
    kind="EDF+C",
    starts=None,
    record_s=1.0,
    records=None,
    encoding="utf-8",
    place=None,
    channels=1,
):
    """An EDF or BDF file; `starts`: when each record begins, by default one after the other.

    `records`: what the header says. `place` and `channels`: where the channels of annotations are
    among the signals, and how many; each takes its turn with a record's annotations.
    """
    is_bdf = kind.startswith("BDF")
    width, room = (3 if is_bdf else 2), 480
    limit = 2 ** (8 * width - 1)
    counts = [round(signal.rate * record_s) for signal in signals]
    number = len(signals[0].values) // counts[0]
    place = len(signals) if place is None else place
    channels = channels if "+" in kind else 0
    order = [*range(place), *[None] * channels, *range(place, len(signals))]
    tals = (f"{kind[:3]} Annotations", "", -1, 1, -limit, limit - 1, room // width)
    columns = [
        (s.label, s.unit, s.low, s.high, -limit, limit - 1, count)
        for s, count in zip(signals, counts, strict=True)
    ]
    columns[place:place] = [tals] * channels
    said = kind if "+" in kind else "24BIT" if is_bdf else ""
    version = b"\xffBIOSEMI" if is_bdf else b"0       "
    named = number if records is None else records
    head = edf_head(named, columns, f"{record_s:g}", said, version)
    body = []
    for record in range(number):
        start = record * record_s if starts is None else starts[record]
        own = [note for note in annotations if 0 <= (note[0] - start) / record_s + 1e-9 < 1]
        turn = 0
        for n in order:
            if n is None:
                times = f"+{start:g}\x14\x14\0" if turn == 0 else ""
                notes = times.encode() + b"".join(
                    f"+{onset:.6f}\x15{lasts:g}\x14".encode() + text.encode(encoding) + b"\x14\0"
                    for onset, lasts, text in own[turn::channels]
                )
                assert len(notes) <= room
                body.append(notes.ljust(room, b"\0"))
                turn += 1
                continue
            part = signals[n].values[record * counts[n] : (record + 1) * counts[n]]
            scaled = part if signals[n].label == "Status" else (part - LOW) / (HIGH - LOW)
            if signals[n].label != "Status":
                scaled = np.round(scaled * (2 * limit - 1) - limit)
            integers = np.asarray(scaled).astype("<i4").view(np.uint8).reshape(-1, 4)
            body.append(integers[:, :width].tobytes())
    path.write_bytes(head + b"".join(body))
    return path
