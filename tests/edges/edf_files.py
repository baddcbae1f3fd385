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
):
    """An EDF or BDF file, whose last channel has the annotations: onset, duration and text.

    `starts`: when each record begins, by default one after the other; `records`: what the header says.
    """
    width, room = (3 if kind.startswith("BDF") else 2), 480
    limit = 2 ** (8 * width - 1)
    counts = [round(signal.rate * record_s) for signal in signals]
    columns = [
        (s.label, s.unit, s.low, s.high, -limit, limit - 1, count)
        for s, count in zip(signals, counts, strict=True)
    ]
    columns.append((f"{kind[:3]} Annotations", "", -1, 1, -limit, limit - 1, room // width))
    starts = starts or [record_s * record for record in range(len(signals[0].values) // counts[0])]
    version = b"\xffBIOSEMI" if width == 3 else b"0       "
    data = edf_head(
        len(starts) if records is None else records, columns, f"{record_s:g}", kind, version
    )
    for record, start in enumerate(starts):
        for signal, count in zip(signals, counts, strict=True):
            part = signal.values[record * count : (record + 1) * count]
            integers = np.round((part - LOW) / (HIGH - LOW) * (2 * limit - 1) - limit).astype("<i4")
            data += integers.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
        notes = f"+{start:g}\x14\x14\0".encode() + b"".join(
            f"+{onset:.6f}\x15{lasts:g}\x14".encode() + text.encode(encoding) + b"\x14\0"
            for onset, lasts, text in annotations
            if 0 <= (onset - start) / record_s + 1e-9 < 1
        )
        assert len(notes) <= room
        data += notes.ljust(room, b"\0")
    path.write_bytes(data)
    return path
