"""A terminal: a progress bar with the newest numbers, and above it what is worth keeping."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from training.logging import console_text
from training.logging.outputs import Kind
from training.logging.progress import Position
from training.logging.quantities import duration

_STYLES = {"best": "bold green", "saved": "dim", "warning": "bold yellow"}
_SILENT = ("train", "log")  # the bar shows the one, the log file keeps the other
_LABELLED = ("head", "summary")


class TerminalOutput:
    """Draws with rich, in the training thread and only when told to.

    The cursor stays visible and nothing on the terminal is switched, so that a process that dies
    without a word leaves it usable. A terminal that has gone is not an error.
    """

    draws = True

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(
            file=stream, force_terminal=True, highlight=False, markup=False, emoji=False
        )
        self._live: Live | None = None
        self._gone = False

    def say(self, kind: Kind, text: str) -> None:
        """Print `text` above the bar."""
        if kind in _SILENT:
            return
        if kind == "warning":
            text = console_text.render_row("warning", text)
        styled = Text(text, style=_STYLES.get(kind, ""))
        if kind in _LABELLED:
            styled.highlight_regex(r"(?m)^\S+", "bold cyan")
        self._try(lambda: self._console.print(styled))

    def show(self, title: str, text: str) -> None:
        """Print `text` in a small panel above the bar."""
        panel = Panel(Text(text), title=title, title_align="left", expand=False)
        self._try(lambda: self._console.print(panel))

    def draw(self, position: Position, units: str, use: str) -> None:
        """Draw the bar anew."""
        self.put(_picture(position, units, use))

    def put(self, picture: RenderableType) -> None:
        """Show anything of rich in the bar's place."""
        self._try(lambda: self._update(picture))

    def close(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._try(self._live.stop)

    def _update(self, picture: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                # What goes to a file must not come out on the terminal.
                redirect_stdout=_is_terminal(sys.stdout),
                redirect_stderr=_is_terminal(sys.stderr),
            )
            self._live.start()
            self._console.show_cursor(True)
        self._live.update(picture, refresh=True)

    def _try(self, action: Callable[[], object]) -> None:
        if self._gone:
            return
        try:
            action()
        except OSError:
            self._gone = True


def is_capable(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can redraw a line."""
    return _is_terminal(stream) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _picture(position: Position, units: str, use: str) -> Group:
    line = Table.grid(padding=(0, 2))
    line.add_row(
        ProgressBar(total=position.total_steps, completed=position.step, width=30),
        Text(f"step {position.step}/{position.total_steps}"),
        Text(f"{duration(position.elapsed_s)} so far"),
        Text(f"{console_text.render_eta(position)} left"),
    )
    return Group(
        line,
        Text(console_text.render_status(position, units, use), no_wrap=True, overflow="ellipsis"),
    )
