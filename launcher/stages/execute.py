"""Stages one after the other: each in processes of its own, until one does not come to its end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher.base import exit_codes
from launcher.base.diagnostics import SettingsError
from launcher.run import failures, prepare, rank
from launcher.run.failures import Report, Stopped
from launcher.run.prepare import Start
from launcher.run_folder import run_folder
from launcher.run_folder.run_folder import RunFolder
from launcher.stages import record
from launcher.stages.pipeline import Chain, Link


@dataclass(frozen=True)
class Ended:
    """How a chain of stages ended."""

    report: Report
    """Of the stage that ran last."""
    folder: Path | None
    """None: nothing was left."""
    result: Mapping[str, Any]
    """What result.json of the whole says."""


def carry_out(
    chain: Chain,
    console: bool,
    tell: Callable[[Report], None],
    announce: Callable[[Link, Start], None],
) -> Ended:
    """Make the folders and train the stages that are left, each one's weights for the next.

    `tell` as for `start.carry_out`; `announce` is called before each stage. Where not even the
    first stage of a new chain trained anything, its folder is taken away again. Raises
    SettingsError.
    """
    made = None if chain.goes_on else make(chain)
    codes: dict[str, int] = {}
    ending: Report | None = None
    try:
        with rank.stoppable():
            for link, begun in chain.left:
                announce(link, begun)
                ending = _train(begun, console, tell)
                codes[link.name] = ending.exit_code
                record.write(chain.record, codes)
                if ending.exit_code != exit_codes.DONE:
                    break
    except (KeyboardInterrupt, Stopped) as fault:
        ending = replace(failures.failed(fault, 0), text="stopped between two stages")
        tell(ending)
    assert ending is not None, "a chain with nothing left is not carried out"
    nothing_done = ending.exit_code == exit_codes.WRONG_WORDS or ending.kind == "stopped"
    if made is not None and nothing_done and not _has_trained(chain):
        made.discard()
        return Ended(ending, None, {})
    return Ended(ending, chain.folder, record.write(chain.record, codes))


def _has_trained(chain: Chain) -> bool:
    return any(run_folder.trained(link.folder) for link in chain.links)


def _train(begun: Start, console: bool, tell: Callable[[Report], None]) -> Report:
    """One stage to its end.

    Raises Stopped, or KeyboardInterrupt, where a signal came too late for this stage to stop.
    """
    signals: set[int] = set()
    ending = prepare.carry_out(begun, console, tell, signals=signals).report
    if ending.exit_code == exit_codes.DONE and signals:
        if signal.SIGINT in signals:
            raise KeyboardInterrupt
        raise Stopped(signal.Signals(min(signals)).name)
    return ending


def make(chain: Chain) -> RunFolder:
    """The folder of the whole, and in it that of each stage with its settings.

    Touches the disk. Raises SettingsError, and has left nothing behind then.
    """
    names = [link.name for link in chain.links]
    made = run_folder.begin(chain.folder, "", lambda folder: record.save(folder, names))
    try:
        for link, begun in chain.left:
            run_folder.make(begun.resolved, link.folder, "")
    except SettingsError:
        made.discard()
        raise
    return made
