"""What a person sees while data is fetched: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from launcher.download.progress import Draw, Progress, Tell
from training.logging.quantities import duration, size

if TYPE_CHECKING:
    from rich.table import Table

_REDRAW_S = 0.1
_LINE_S = 10.0
"""Between two lines, where there is no terminal to draw on."""


class Pace:
    """How fast one file comes: measured from the first that is seen of an attempt."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._of: tuple[str, bool] | None = None
        self._begun_at = 0.0
        self._begun_bytes = 0
        self._last = 0

    def rate(self, progress: Progress) -> float | None:
        """Bytes a second; None: nothing measured yet."""
        of = (progress.name, progress.is_unpacking)
        if of != self._of or progress.new_bytes < self._last:  # another file, or another attempt
            self._of, self._begun_at = of, self._now()
            self._begun_bytes = progress.new_bytes
        self._last = progress.new_bytes
        seconds = self._now() - self._begun_at
        new = progress.new_bytes - self._begun_bytes
        return new / seconds if seconds > 0 and new else None


def words(progress: Progress, rate: float | None) -> list[str]:
    """`1.2 GiB of 4.7 GiB`, `30.1 MiB/s`, `2m05s left`, as far as they are known."""
    done, total = size(progress.done_bytes), progress.total_bytes
    verb = "unpacked" if progress.is_unpacking else "so far"
    found = [f"{done} {verb}" if total is None else f"{done} of {size(total)}"]
    if rate is not None:
        found.append(f"{size(rate)}/s")
        if total is not None:
            found.append(f"{duration((total - progress.done_bytes) / rate)} left")
    return found


@contextmanager
def console(
    stream: TextIO, now: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Tell, Draw]]:
    """What tells and what draws on `stream`, as it can; a terminal is left as it was found."""
    from training.logging.outputs import PlainOutput  # with rich, which most starts need only later
    from training.logging.terminal import TerminalOutput, is_capable

    voice = TerminalOutput(stream) if is_capable(stream) else PlainOutput(stream)
    every_s = _REDRAW_S if voice.draws else _LINE_S
    pace, shown_at = Pace(now), now()

    def tell(text: str) -> None:
        voice.say("notice", text)

    def draw(progress: Progress) -> None:
        nonlocal shown_at
        rate = pace.rate(progress)
        if now() - shown_at < every_s:
            return
        shown_at = now()
        told = words(progress, rate)
        if isinstance(voice, TerminalOutput):
            voice.put(_bar(progress, told))
        else:
            tell(f"{progress.name}: {', '.join(told)}")

    try:
        yield tell, draw
    finally:
        voice.close()


def _bar(progress: Progress, told: list[str]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = ProgressBar(total=progress.total_bytes, completed=progress.done_bytes, width=30)
    line = Table.grid(padding=(0, 2))
    line.add_row(bar, Text(progress.name), *map(Text, told))
    return line
