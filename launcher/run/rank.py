"""The process of one rank, from its job file and signal handlers to its exit code."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import TypeAdapter

from launcher.base import environment, exit_codes, library_warnings, signals
from launcher.config.presets import TASK_FOLDER
from launcher.run import affinity, run_end
from launcher.run.run_end import RunEnd, exit_now
from launcher.run_folder.run_plan import RunPlan
from models.catalog import is_custom

if TYPE_CHECKING:
    from training.callbacks.base import Outcome
    from training.evaluation.evaluate import SplitResult

SUPERVISOR = "GEARSHIFT_SUPERVISOR"
"""Environment variable with the process id of the supervisor."""
_FILE = "job.json"
Work = Callable[[RunPlan], "Outcome | SplitResult"]
_PARENT_CHECK_S = 1.0
ORPHAN_S = 60.0
"""Seconds for a rank to save and end after its supervisor was killed."""


def worker() -> Work:
    """The function that a rank runs; imports torch."""
    with environment.importing(), signals.deferred():
        import torch._dynamo  # noqa: F401 - the first optimizer imports it

        from launcher.run.worker import work

    return work


def run(plan: RunPlan, rank: int = 0) -> RunEnd:
    """Run the work of a rank in this process; however it ends, that is returned."""

    def report(error: BaseException) -> None:
        if plan.reports is not None:
            _save_and_exit(run_end.of_error(error, rank), plan.reports)

    try:
        with signals.stoppable(report), library_warnings.logged(plan.log):
            signals.leave("nothing was saved")
            affinity.pin_to_cores(plan.resolved.settings, environment.variables())
            return run_end.agreed(asdict(worker()(plan)), rank)
    # The outermost frame of a rank: every end, also Ctrl-C, is handed back.
    except BaseException as error:
        return run_end.of_error(error, rank)
    finally:
        signals.leave("")


def save_plan(plan: RunPlan, folder: Path) -> None:
    """Write `plan` to `folder` for the ranks, which only the user can read. Touches the disk.

    Without warnings: they have been shown.
    """
    plain = replace(plan, resolved=replace(plan.resolved, warnings=()))
    content = TypeAdapter(RunPlan).dump_python(plain, mode="json")
    (folder / _FILE).write_text(json.dumps(content), encoding="utf-8")


def load_plan(folder: Path) -> RunPlan:
    """Read the plan that `save_plan` wrote; reports go to the same folder. Touches the disk."""
    plan = TypeAdapter(RunPlan).validate_python(json.loads((folder / _FILE).read_bytes()))
    values = plan.resolved.values
    if is_custom(values["model.family"].value):
        from launcher.config import custom_task  # for the runs that train one

        custom_task.add_search_folder(values[TASK_FOLDER].value)
    return replace(plan, reports=folder)


def stacks_file(folder: Path, rank: int) -> Path:
    """The file for the stacks of a rank that a fatal signal ends."""
    return folder / f"rank-{rank}.stacks"


def serve(folder: Path) -> None:
    """Run one rank of the job in `folder`, save its end there, and exit.

    The exit code is 0 for every end that all ranks agreed on: the supervisor reads the agreed code
    from what is saved.
    """
    environment.is_own_process = True
    rank = int(environment.variables().get("RANK", 0))
    try:
        stacks = stacks_file(folder, rank).open("w", encoding="utf-8")
    except FileNotFoundError:  # the supervisor was stopped while it started this rank
        exit_now(exit_codes.RUN_AGAIN)
    with stacks:
        faulthandler.enable(stacks)
        # Not the current parent: the supervisor may have been killed already.
        _end_with_parent(int(environment.variables().get(SUPERVISOR, os.getppid())))
        try:
            # A Ctrl-C since the start of this process raises KeyboardInterrupt here.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            plan = load_plan(folder)
        except BaseException as error:  # as in `run`
            end = run_end.of_error(error, rank)
        else:
            end = run(replace(plan, console=plan.console and rank == 0), rank)
        _save_and_exit(end, folder)


def _save_and_exit(end: RunEnd, folder: Path) -> NoReturn:
    with suppress(FileNotFoundError):  # as in `serve`
        end.save(folder)
    # Also after a normal end: gloo threads sometimes abort the interpreter at shutdown.
    exit_now(exit_codes.DONE if end.kind == "ended" else end.exit_code)


def _end_with_parent(parent: int) -> None:
    """Make this rank save and end when its supervisor is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(ORPHAN_S)
        os._exit(exit_codes.FAILURE)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
