"""The live view of a run on a terminal: a progress bar of rich, the newest numbers, memory, next save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from training.logging import console_text
from training.logging.printable import printable
from training.logging.progress import Position
from training.logging.quantities import duration

_NARROW = 60
"""Columns below which the bar and the elapsed time are left out."""


@dataclass(frozen=True)
class LiveView:
    """All that the live view shows of a run; a renderable of rich whose lines never wrap."""

    position: Position
    units: str
    usage: Mapping[str, float] = field(default_factory=dict)
    """Use of the machine in percent, by resource."""
    limits: Mapping[str, float | None] = field(default_factory=dict)
    event: str | None = None
    """The last event; None: there was none."""
    next_save: int | None = None
    """The step of the next planned checkpoint; None: there is none."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        position, eta = self.position, console_text.render_eta(self.position)
        if options.max_width < _NARROW:
            yield unwrapped(Text(f"step {position.step}/{position.total_steps}  {eta}"))
        else:
            text = f"step {{task.completed}}/{{task.total}}  {duration(position.elapsed_s)} elapsed  {eta}"
            bar = Progress(BarColumn(max(options.max_width - 60, 10)), TextColumn(text), console=console)
            bar.add_task("", total=position.total_steps, completed=position.step)
            yield bar.make_tasks_table(bar.tasks)
        yield unwrapped(Text(console_text.render_status(position, self.units)))
        rows = {"memory": ", ".join(self.memory()), "last": self.event, "next": self.render_next_save()}
        for label, row in rows.items():
            if row:
                yield unwrapped(Text(f"{label:<6}  {printable(row)}", style="dim"))

    def memory(self) -> list[str]:
        names = [name for name in ("ram", "gpu") if name in self.usage]
        return [f"{n} {console_text.render_use(self.usage[n], self.limits.get(n))}" for n in names]

    def render_next_save(self) -> str | None:
        """`save at step 150, in 12 s`; None: none is planned."""
        if self.next_save is None:
            return None
        text, last = f"save at step {self.next_save}", self.position.last
        if last is None:
            return text
        return f"{text}, in {duration((self.next_save - self.position.step) * last.step_time_s)}"


def unwrapped(text: Text) -> Text:
    """`text`, changed so that it ends in an ellipsis instead of wrapping."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
