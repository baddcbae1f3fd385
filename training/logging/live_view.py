"""The live view of a run on a terminal: progress, loss curve, memory, last event, next save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from training.logging import console_text
from training.logging.metrics import NEAR
from training.logging.printable import printable
from training.logging.progress import Position
from training.logging.quantities import duration

MEMORY = ("ram", "gpu")
"""The resources that are shown with a bar."""
_BAR, _SMALL_BAR, _LEAST_BAR = 30, 10, 4
_CURVE = 16
"""Characters of the loss curve."""
_LEVELS = "▁▂▃▄▅▆▇█"
_NARROW = 60
"""Columns below which the elapsed time is left out."""


def sparkline(values: Sequence[float], width: int = _CURVE) -> str:
    """The curve of `values` in one line of at most `width` characters."""
    if not values:
        return ""
    width = min(width, len(values))
    ends = [len(values) * n // width for n in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(ends)]
    low, high = min(means), max(means)
    scale = (len(_LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(_LEVELS[round((mean - low) * scale)] for mean in means)


@dataclass(frozen=True)
class LiveView:
    """All that the live view shows of a run; a renderable of rich whose lines never wrap."""

    position: Position
    units: str
    usage: Mapping[str, float] = field(default_factory=dict)
    """Use of the machine in percent, by resource."""
    limits: Mapping[str, float | None] = field(default_factory=dict)
    losses: Sequence[float] = ()
    event: str | None = None
    """The last event; None: there was none."""
    next_save: int | None = None
    """The step of the next planned checkpoint; None: there is none."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The lines, in the width of `options`."""
        yield self._progress(options.max_width)
        curve = "" if options.ascii_only else sparkline(self.losses)
        yield unwrapped(Text(console_text.render_status(self.position, self.units, curve)))
        if any(name in self.usage for name in MEMORY):
            yield unwrapped(self._memory("#-" if options.ascii_only else "━─"))
        if self.event is not None:
            yield unwrapped(Text(f"last  {printable(self.event)}", style="dim"))
        if self.next_save is not None:
            yield unwrapped(Text(f"next  {self.render_next_save()}", style="dim"))

    def render_next_save(self) -> str:
        """`save at step 150, in 12 s`."""
        text, last = f"save at step {self.next_save}", self.position.last
        if last is None or self.next_save is None:
            return text
        return f"{text}, in {duration((self.next_save - self.position.step) * last.step_time_s)}"

    def _progress(self, width: int) -> Table:
        position = self.position
        elapsed = f"  {duration(position.elapsed_s)} elapsed" if width >= _NARROW else ""
        eta = console_text.render_eta(position)
        text = f"step {position.step}/{position.total_steps}{elapsed}  {eta}"
        row: list[RenderableType] = [unwrapped(Text(text))]
        bar = min(_BAR, width - len(text) - 2)
        if bar >= _LEAST_BAR:
            total = position.total_steps
            row.insert(0, ProgressBar(total=total, completed=position.step, width=bar))
        grid = Table.grid(padding=(0, 2))
        grid.add_row(*row)
        return grid

    def _memory(self, signs: str) -> Text:
        text = Text()
        for name in (name for name in MEMORY if name in self.usage):
            used, limit = self.usage[name], self.limits.get(name)
            full = min(max(round(used / 100 * _SMALL_BAR), 0), _SMALL_BAR)
            style = "green"
            if limit is not None and used > limit - NEAR:
                style = "bold red" if used > limit else "yellow"
            text.append(f"{'  ' if text else ''}{name} ")
            text.append(signs[0] * full, style=style)
            text.append(signs[1] * (_SMALL_BAR - full), style="dim")
            text.append(f" {console_text.render_use(used, limit)}")
        return text


def unwrapped(text: Text) -> Text:
    """`text`, changed so that it ends in an ellipsis instead of wrapping."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
