"""The terminal output: the live view of a run, and lasting lines above it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from gearshift.training.logging.console_reporter import ConsoleOutput, Kind, discarding, is_terminal
from gearshift.training.logging.encoding import printable

_STYLES = {"best": "bold green", "saved": "dim", "warning": "bold yellow"}


def unwrapped(lines: Sequence[str]) -> Group:
    """`lines` for rich, none of which wraps."""
    return Group(*[Text(printable(line), no_wrap=True, overflow="ellipsis") for line in lines])


class TerminalOutput(ConsoleOutput):
    """Draws with rich, in the training thread and only in `draw`.

    The cursor stays visible and no terminal mode changes, so that a process that is killed leaves
    the terminal usable. A terminal that has gone is not an error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(
            file=stream,
            force_terminal=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            # Output that goes to a file must not appear on the terminal.
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=is_terminal(sys.stderr),
        )

    def write(self, kind: Kind, text: str) -> None:
        if kind not in ("train", "log"):  # the bar shows one, the log file has the other
            with discarding(self._stream):
                self._console.print(Text(printable(text), style=_STYLES.get(kind, "")))

    def draw(self, lines: Sequence[str]) -> None:
        with discarding(self._stream):
            if not self._live.is_started:
                self._live.start()
                self._console.show_cursor(True)
            self._live.update(unwrapped(lines), refresh=True)

    def close(self) -> None:
        with discarding(self._stream):
            self._live.stop()
