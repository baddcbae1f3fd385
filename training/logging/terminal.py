"""The terminal output: the live view of a run, and lasting lines above it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from training.logging import console_text
from training.logging.outputs import ConsoleOutput, Kind
from training.logging.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live


_STYLES = {"best": "bold green", "saved": "dim", "warning": "bold yellow"}
_HIDDEN = ("train", "log")  # the bar shows one, the log file has the other


class TerminalOutput(ConsoleOutput):
    """Draws with rich, in the training thread and only in `draw`.

    The cursor stays visible and no terminal mode changes, so that a process that is killed leaves
    the terminal usable. A terminal that has gone is not an error.
    """

    is_live = True

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # for a terminal only

        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._has_gone = False

    def write(self, kind: Kind, text: str) -> None:
        from rich.text import Text

        if kind in _HIDDEN:
            return
        if kind == "warning":
            text = console_text.render_row("warning", text)
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
        from rich.live import Live

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
