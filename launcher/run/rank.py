"""The process of one rank that a supervisor started, from its job file to its exit code."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.run import run_end, run_error
from gearshift.launcher.run.execute import run_rank
from gearshift.launcher.run.supervisor import PLAN, SUPERVISOR, stacks_file
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.catalog import is_custom

_PARENT_CHECK_S = 1.0
ORPHAN_S = 60.0
"""Seconds for a rank to save and end after its supervisor was killed."""


def load_plan(folder: Path) -> RunPlan:
    """Read the plan that `save_plan` wrote; reports go to the same folder. Touches the disk."""
    plan = TypeAdapter(RunPlan).validate_python(json.loads((folder / PLAN).read_bytes()))
    values = plan.resolved.values
    if is_custom(values["model.family"].value):
        from gearshift.launcher.config import custom_task  # for the runs that train one

        custom_task.add_search_folder(values[TASK_FOLDER].value)
    return replace(plan, reports=folder)


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
        run_end.exit_now(exit_codes.RUN_AGAIN)
    with stacks:
        faulthandler.enable(stacks)
        # Not the current parent: the supervisor may have been killed already.
        _end_with_parent(int(environment.variables().get(SUPERVISOR, os.getppid())))
        try:
            # A Ctrl-C since the start of this process raises KeyboardInterrupt here.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            plan = load_plan(folder)
        except BaseException as error:  # as in `run_rank`
            end = run_error.of_error(error, rank)
        else:
            end = run_rank(replace(plan, console=plan.console and rank == 0), rank)
        run_error.save_and_exit(end, folder)


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
