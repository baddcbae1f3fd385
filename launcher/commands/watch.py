"""The command `watch`: show the progress of runs from another terminal."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.diagnostics import PROGRAM, SettingsError
from gearshift.launcher.base.signals import handling
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.checkpoint_search import newest
from gearshift.training.logging.console_reporter import can_redraw
from gearshift.training.logging.encoding import encode, printable

if TYPE_CHECKING:
    from gearshift.launcher.report.watched_run import WatchedRun

_REFRESH_S = 1.0
_ENDED_AFTER = 3
"""Equal looks after which a run counts as ended: one that restarts has no process for a moment."""


def main(command_line: CommandLine) -> int:
    """Show the runs until they have ended or Ctrl-C; the exit code. Raises SettingsError."""
    from gearshift.launcher.report.watched_run import WatchedRun, folders_of

    arguments = [command_line.argument or _newest_run(), *command_line.more]
    folders = dict.fromkeys(chain.from_iterable(map(folders_of, arguments)))
    runs = list(map(WatchedRun, folders))
    is_live = can_redraw(sys.stdout, environment.variables().get("TERM"))
    if is_live and not {"--once", "--json"} & {*command_line.values}:
        _follow(runs)
    else:
        _print(runs, as_json=command_line.as_json)
    return exit_codes.DONE


def _newest_run() -> str:
    """The run in runs/ that was started or resumed last. Raises SettingsError."""
    runs = newest(run_folder.SETTINGS, run_folder.STAGES)
    if not runs:
        raise SettingsError.of(
            f"there is no run in {run_folder.PARENT}/",
            where="the command line: watch",
            hint=f"{PROGRAM}  starts one;  {PROGRAM} watch RUN  shows one of another folder",
        )
    return str(runs[0])


def _follow(runs: Sequence[WatchedRun]) -> None:
    """Redraw the runs until all have ended or Ctrl-C; their last state stays."""
    from rich.console import Console

    from gearshift.launcher.report.watched_run import screen
    from gearshift.training.logging.terminal import TerminalOutput, unwrapped

    output = TerminalOutput(sys.stdout)
    ended = 0
    last: list[str] = []
    interrupts: list[int] = []
    try:
        # By a flag: an exception of a handler is lost where the interpreter frees an object.
        with handling([signal.SIGINT], lambda number, frame: interrupts.append(number)):
            while ended < _ENDED_AFTER and not interrupts:
                snapshots = [run.snapshot() for run in runs]
                last = screen(snapshots)
                output.draw(last)
                ended = ended + 1 if all(each.has_ended for each in snapshots) else 0
                next_look = time.monotonic() + _REFRESH_S
                while not interrupts and time.monotonic() < next_look:
                    time.sleep(_REFRESH_S / 20)
    finally:
        output.close()
    Console(highlight=False).print(unwrapped(last))


def _print(runs: Sequence[WatchedRun], as_json: bool) -> None:
    from gearshift.launcher.report import watched_run

    for run in runs:
        snapshot = run.snapshot()
        text = printable(watched_run.plain(snapshot))
        print(encode(watched_run.as_json(snapshot)) if as_json else text)
