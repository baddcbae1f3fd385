"""Progress of downloads: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from launcher.base import environment
from training.logging.quantities import duration, size

if TYPE_CHECKING:
    from rich.progress import Task

_REDRAW_S = 0.1
_LINE_S = 10.0


@dataclass(frozen=True)
class DownloadProgress:
    """The progress of one file."""

    name: str
    done_bytes: int
    total_bytes: int | None
    """None: unknown."""
    is_unpacking: bool = False


Print = Callable[[str], None]
Draw = Callable[[DownloadProgress], None]


def describe(task: Task) -> str:
    """`1.2 GiB of 4.7 GiB, 30.1 MiB/s, ETA 2m05s`, without what is unknown."""
    total = "so far" if task.total is None else f"of {size(task.total)}"
    text = f"{size(task.completed)} {total}"
    if task.speed:
        text += f", {size(task.speed)}/s"
        if task.time_remaining is not None:
            text += f", ETA {duration(task.time_remaining)}"
    return text


@contextmanager
def console(
    stream: TextIO, now: Callable[[], float] = time.monotonic
) -> Iterator[tuple[Print, Draw]]:
    """Functions that print and draw on `stream`; on exit the bar is removed."""
    # rich takes time to import, and most starts need it only later.
    from rich import progress as rich_progress
    from rich.text import Text

    from training.logging.outputs import PlainOutput
    from training.logging.terminal import TerminalOutput, can_redraw

    class Amounts(rich_progress.ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.description}  {describe(task)}")

    redraws = can_redraw(stream, environment.variables().get("TERM"))
    output = TerminalOutput(stream) if redraws else PlainOutput(stream)
    every_s = _REDRAW_S if redraws else _LINE_S
    # Disabled: it does not write by itself.
    bar = rich_progress.Progress(rich_progress.BarColumn(30), Amounts(), get_time=now, disable=True)
    drawn_at = now()

    def print(text: str) -> None:
        output.write("notice", text)

    def draw(progress: DownloadProgress) -> None:
        nonlocal drawn_at
        name, done = progress.name, progress.done_bytes
        if progress.is_unpacking:
            name += ", unpacking"
        if not bar.tasks or bar.tasks[0].description != name or done < bar.tasks[0].completed:
            for old in bar.task_ids:
                bar.remove_task(old)
            bar.add_task(name, completed=done, total=progress.total_bytes)
        bar.update(bar.task_ids[0], completed=done)
        if now() - drawn_at < every_s:
            return
        drawn_at = now()
        if isinstance(output, TerminalOutput):
            output.draw_renderable(bar.get_renderable())
        else:
            print(f"{name}: {describe(bar.tasks[0])}")

    try:
        yield print, draw
    finally:
        output.close()
