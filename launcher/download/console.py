"""Progress of downloads: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from launcher.base import environment
from training.logging.quantities import duration, size

_REDRAW_S = 0.1
_LINE_S = 10.0


@dataclass(frozen=True)
class Progress:
    """The progress of one file."""

    name: str
    done_bytes: int
    total_bytes: int | None
    """None: unknown."""
    new_bytes: int
    """Of `done_bytes`, those of the current attempt."""
    is_unpacking: bool = False


Print = Callable[[str], None]
Draw = Callable[[Progress], None]


class TransferRate:
    """Bytes per second of one file, from the start of an attempt."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._attempt: tuple[str, bool] | None = None
        self._start_s = 0.0
        self._start_bytes = 0
        self._last = 0

    def update(self, progress: Progress) -> float | None:
        """The rate; None: not measured yet."""
        attempt = (progress.name, progress.is_unpacking)
        if attempt != self._attempt or progress.new_bytes < self._last:  # another file or attempt
            self._attempt, self._start_s = attempt, self._now()
            self._start_bytes = progress.new_bytes
        self._last = progress.new_bytes
        seconds = self._now() - self._start_s
        new = progress.new_bytes - self._start_bytes
        return new / seconds if seconds > 0 and new else None


def describe(progress: Progress, rate: float | None) -> list[str]:
    """`1.2 GiB of 4.7 GiB`, `30.1 MiB/s`, `ETA 2m05s`, without what is unknown."""
    done, total = size(progress.done_bytes), progress.total_bytes
    verb = "unpacked" if progress.is_unpacking else "so far"
    found = [f"{done} {verb}" if total is None else f"{done} of {size(total)}"]
    if rate is not None:
        found.append(f"{size(rate)}/s")
        if total is not None:
            found.append(f"ETA {duration((total - progress.done_bytes) / rate)}")
    return found


@contextmanager
def console(
    stream: TextIO, now: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Print, Draw]]:
    """Functions that print and draw on `stream`; on exit the bar is removed."""
    # rich takes time to import, and most starts need it only later.
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from training.logging.outputs import PlainOutput
    from training.logging.terminal import TerminalOutput, can_redraw

    redraws = can_redraw(stream, environment.variables().get("TERM"))
    output = TerminalOutput(stream) if redraws else PlainOutput(stream)
    every_s = _REDRAW_S if output.is_live else _LINE_S
    transfer_rate, drawn_at = TransferRate(now), now()

    def print(text: str) -> None:
        output.write("notice", text)

    def draw(progress: Progress) -> None:
        nonlocal drawn_at
        rate = transfer_rate.update(progress)
        if now() - drawn_at < every_s:
            return
        drawn_at = now()
        texts = describe(progress, rate)
        if isinstance(output, TerminalOutput):
            total, done = progress.total_bytes, progress.done_bytes
            bar = ProgressBar(total=total, completed=done, width=30)
            line = Table.grid(padding=(0, 2))
            line.add_row(bar, Text(progress.name), *map(Text, texts))
            output.draw_renderable(line)
        else:
            print(f"{progress.name}: {', '.join(texts)}")

    try:
        yield print, draw
    finally:
        output.close()
