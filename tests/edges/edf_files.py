"""EDF and BDF files written field by field, so that each field can be a strange one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


def write_edf(
    path: Path,
    signals: Sequence[Signal],
    annotations: Sequence[tuple[float, float, str]] = (),
    *,
    kind: str = "EDF+C",
    starts: Sequence[float] | None = None,
    record_s: float = 1.0,
    records: object = None,
    encoding: str = "utf-8",
    place: int | None = None,
    channels: int = 1,
) -> Path:
    """An EDF or BDF file; `starts`: when each record begins, by default one after the other.

    `records`: what the header says. `place` and `channels`: where the channels of annotations are
    among the signals, and how many; each takes its turn with a record's annotations.
    Source: Kemp and Olivan, European data format 'plus', 2003.
    """
    is_bdf = kind.startswith("BDF")
    width, room = (3 if is_bdf else 2), 480
    limit = 2 ** (8 * width - 1)
    counts = [round(signal.rate * record_s) for signal in signals]
    number = len(signals[0].values) // counts[0]
    place = len(signals) if place is None else place
    labels = [signal.label for signal in signals]
    names = [f"{kind[:3]} Annotations"] * channels if "+" in kind else []
    order = [*range(place), *[None] * len(names), *range(place, len(signals))]

    def column(size: int, of_signal: Sequence[object], of_notes: object) -> bytes:
        cells = [of_notes if n is None else of_signal[n] for n in order]
        return b"".join(str(cell).encode("latin-1")[:size].ljust(size) for cell in cells)

    head = b"\xffBIOSEMI" if is_bdf else b"0       "
    head += b"X X X X".ljust(80) + b"Startdate X X X X".ljust(80) + b"01.01.25" + b"00.00.00"
    head += str(256 * (len(order) + 1)).ljust(8).encode()
    head += (kind if "+" in kind else "24BIT" if is_bdf else "").ljust(44).encode()
    head += str(number if records is None else records).ljust(8).encode()
    head += f"{record_s:g}".ljust(8).encode() + str(len(order)).ljust(4).encode()
    head += column(16, labels, names[0] if names else "") + column(80, [""] * len(labels), "")
    head += column(8, [signal.unit for signal in signals], "")
    head += column(8, [signal.low for signal in signals], -1)
    head += column(8, [signal.high for signal in signals], 1)
    head += column(8, [-limit] * len(labels), -limit)
    head += column(8, [limit - 1] * len(labels), limit - 1) + column(80, [""] * len(labels), "")
    head += column(8, counts, room // width) + column(32, [""] * len(labels), "")

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
                    for onset, lasts, text in own[turn :: len(names)]
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
