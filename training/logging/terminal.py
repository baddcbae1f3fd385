"""The terminal output: the live view of a run, and lasting lines above it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from training.callbacks.base import Numbers
from training.logging import console_text
from training.logging.outputs import ConsoleOutput, Kind
from training.logging.printable import printable
from training.logging.progress import Position
from training.logging.quantities import duration

_NARROW = 60  # Columns below which the bar and the elapsed time are left out
_STYLES = {"best": "bold green", "saved": "dim", "warning": "bold yellow"}
_HIDDEN = ("train", "log")  # the bar shows one, the log file has the other


@dataclass(frozen=True)
class LiveView:
    """All that the live view shows of a run; a renderable of rich whose lines never wrap."""

    position: Position
    units: str
    usage: Numbers = field(default_factory=dict)
    """Use of the machine in percent, by resource."""
    event: str | None = None
    """The last event; None: there was none."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        position, eta = self.position, console_text.render_eta(self.position)
        if options.max_width < _NARROW:
            yield unwrapped(Text(f"step {position.step}/{position.total_steps}  {eta}"))
        else:
            text = f"step {{task.completed}}/{{task.total}}  {duration(position.elapsed_s)} elapsed  {eta}"
            bar = Progress(BarColumn(max(options.max_width - 60, 10)), TextColumn(text), console=console)
            bar.add_task("", total=position.total_steps, completed=position.step)
            yield bar.make_tasks_table(bar.tasks)
        usage = console_text.render_usage(self.usage)
        yield unwrapped(Text(f"{console_text.render_status(position, self.units)}  {usage}".rstrip()))
        if self.event is not None:
            yield unwrapped(Text(f"last  {printable(self.event)}", style="dim"))


def unwrapped(text: Text) -> Text:
    """`text`, changed so that it ends in an ellipsis instead of wrapping."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


class TerminalOutput(ConsoleOutput):
    """Draws with rich, in the training thread and only in `draw`.

    The cursor stays visible and no terminal mode changes, so that a process that is killed leaves
    the terminal usable. A terminal that has gone is not an error.
    """

    is_live = True

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._has_gone = False

    def write(self, kind: Kind, text: str) -> None:
        if kind in _HIDDEN:
            return
        styled = Text(printable(text), style=_STYLES.get(kind, ""))
        if kind in ("head", "summary"):
            styled.highlight_regex(r"(?m)^\S+", "bold cyan")
        self._try(lambda: self._console.print(styled))

    def draw(self, view: RenderableType) -> None:
        self._try(lambda: self._update(view))

    def close(self) -> None:
        if self._live is not None:
            self._try(self._live.stop)

    def _update(self, renderable: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                # Output that goes to a file must not appear on the terminal.
                redirect_stdout=_is_terminal(sys.stdout),
                redirect_stderr=_is_terminal(sys.stderr),
            )
            self._live.start()
            self._console.show_cursor(True)
        self._live.update(renderable, refresh=True)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._has_gone:
            try:
                action()
            except OSError:
                self._has_gone = True


def can_redraw(stream: TextIO, term: str | None) -> bool:
    """Whether `stream` is a terminal that can redraw a line; `term` is the variable TERM."""
    return _is_terminal(stream) and term not in (None, "", "dumb", "unknown")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()
