"""Execution of a prepared run: its folder, its ranks with their restarts, and the last line."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import disk, environment, exit_codes, signals
from gearshift.launcher.base.diagnostics import FetchError, SettingsError, from_here, program_line
from gearshift.launcher.base.signals import ProcessPhase, Stopped, at_signal
from gearshift.launcher.config.command_line import INPUT
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.provenance import as_list
from gearshift.launcher.config.resolve import fetch_data, fetch_weights
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run import run_end
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import run_folder
from gearshift.launcher.run_folder.run_folder import (
    CHECKPOINTS,
    EXPERIENCES,
    LOG,
    REPORT,
    SETTINGS,
    RunFolder,
)
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.models.catalog import FAMILIES
from gearshift.training.logging.metrics import append_event
from gearshift.training.resources import memory
from gearshift.training.storage import Storage
from gearshift.training.throttle import MAX_HALVINGS

if TYPE_CHECKING:
    from gearshift.training.callbacks.base import Outcome
    from gearshift.training.evaluation.evaluate_split import SplitResult

_LOST_PEER_WAIT_S = 3.0
"""How long a rank that lost a peer waits before it reports: the peer reports first."""
_RESTARTED = ("failed", "killed", "peer lost")
"""Ends that a restart may avoid. Invalid input and a loss that is not finite would come again."""
Show = Callable[[RunEnd], None]
Train = Callable[[RunPlan, Show], RunEnd]
"""Trains to the end of the run, and shows each failure."""


def execute_run(plan: RunPlan, console: bool, show: Show, train: Train | None = None) -> RunEnd:
    """Create the run folder and train to the end with `train`, by default `train_ranks`.

    `show` gets each failure. The folder of a run that did not train, because of invalid data, is
    removed; that of a resumed run stays as it was. Raises SettingsError.
    """
    train = train or train_ranks
    folder = None
    try:
        with signals.stoppable():
            _fetch(plan, shows_progress=console and plan.is_rank_0)
            environment.limit_spinning()
            if not plan.is_rank_0:
                return train(plan, show)
            with signals.deferred():
                folder = _run_folder(plan)
            explain = partial(run_end.explained, resolved=plan.resolved, folder=folder.path)
            with at_signal(folder.discard):
                plan = replace(plan, folder=folder.path, console=console)
                end = explain(train(plan, lambda end: show(explain(end))))
    except (FetchError, Stopped, KeyboardInterrupt) as error:
        # Signals come here between the parts that handle them.
        from gearshift.launcher.run.run_error import of_error

        end = of_error(error, plan.launched.rank if plan.launched else 0)
        show(end)
    if not folder:
        return end
    with signals.deferred():
        return _finish(plan, folder, end)


def _fetch(plan: RunPlan, shows_progress: bool) -> None:
    """Fetch weights, data and files that the run asks for. Raises FetchError."""
    settings = plan.resolved.settings
    fetch_weights(plan.resolved.values)
    fetch_data(plan.resolved.values)
    if settings.download.fetch:
        from gearshift.launcher.config.feature_checks import is_requested

        if is_requested(plan.resolved.values):
            from gearshift.launcher.download.fetch import fetch

            fetch(settings.download, shows_progress, plan.launched)


def _run_folder(plan: RunPlan) -> RunFolder:
    """The run folder of a new run, of the one that is resumed, or of its fork. Touches the disk."""
    source = plan.resume.source if plan.resume else None
    if not source or not run_folder.is_run_folder(source):
        return run_folder.create(plan.resolved, plan.out, plan.name)
    from gearshift.launcher.run_folder import checkpoint_search

    if source.resolve() == plan.destination.resolve():
        allowed = "a run that this user may write to; or  --out DIR , which forks it"
        for folder in (source, source / CHECKPOINTS):
            disk.check_writable(folder, f"the run in {source}", allowed=allowed)
        return RunFolder(plan.destination, is_resumed=True)
    return run_folder.create(
        plan.resolved, plan.out, plan.name, partial(checkpoint_search.copy_run, source)
    )


def train_ranks(plan: RunPlan, show: Show) -> RunEnd:
    """Train the ranks of `plan` to their end, in this process or in supervised ones."""
    variables = environment.variables()
    launched = plan.launched
    if not launched and (plan.starts_processes or _may_be_killed()):
        from gearshift.launcher.run.supervisor import supervise

        return repeat(plan, supervise, show)
    if plan.threads:
        variables[environment.THREADS] = str(plan.threads)
    if not launched:
        end = repeat(plan, run_rank, show)
    else:
        variables.update(launched.variables())
        end = run_rank(plan, launched.rank)
        if end.kind == "peer lost":
            # The rank that failed reports first; srun or torchrun then ends this one as it waits.
            code = end.exit_code
            with signals.phase(ProcessPhase.TRAINS, lambda number: os._exit(code)):
                time.sleep(_LOST_PEER_WAIT_S)
        if end.text and (end.kind != "ended" or plan.is_rank_0):
            show(end)
    signals.end_start()
    return end


def _may_be_killed() -> bool:
    """Whether the ranks run in a process of their own, which the kernel kills instead of this one.

    It does where a control group limits memory. Only a program that this process is may start one.
    """
    handler = signals.installed()
    is_job = handler and handler.in_job
    return environment.is_own_process and not is_job and bool(memory.container_memory())


def worker() -> Callable[[RunPlan], Outcome | SplitResult]:
    """The function that a rank runs; imports torch."""
    with environment.importing(), signals.deferred():
        import torch._dynamo  # noqa: F401 - the first optimizer imports it

        from gearshift.launcher.run.worker import work

    return work


def run_rank(plan: RunPlan, rank: int = 0) -> RunEnd:
    """Run the work of a rank in this process; however it ends, that is returned."""

    def report(error: BaseException) -> None:
        if plan.reports:
            from gearshift.launcher.run.run_error import of_error, save_and_exit

            save_and_exit(of_error(error, rank), plan.reports)

    try:
        with signals.stoppable(report), environment.logged(plan.log):
            signals.leave("nothing was saved")
            if plan.resolved.settings.engine.bind_cores:
                from gearshift.launcher.run import affinity

                affinity.pin_to_cores(environment.variables())
            return run_end.agreed(asdict(worker()(plan)), rank)
    # The outermost frame of a rank: every end, also Ctrl-C, is handed back.
    except BaseException as error:
        from gearshift.launcher.run.run_error import of_error

        return of_error(error, rank)
    finally:
        signals.leave("")


def repeat(plan: RunPlan, attempt: Callable[[RunPlan], RunEnd], show: Show) -> RunEnd:
    """Run the ranks by `attempt` to their end, with engine.max_restarts restarts after failures.

    After out of memory they restart with half the micro-batch and the same global batch, three
    times at most: a rank cannot retry a step while its peers wait in a collective, and not at all
    if the kernel killed it. After a damaged checkpoint they restart from the one before it. Each
    restart resumes from the newest checkpoint, and is printed and logged. `show` gets each
    failure; the last end is returned. Touches the disk.
    """
    folder = plan.folder
    resumed = plan.resume
    assert folder, "these ranks have a run folder"
    newest = None  # step in the run folder
    first = None  # step to resume from
    if resumed:  # a new run has no checkpoints to look for
        newest = _newest_step(folder)
        first = _newest_step(resumed.source) if resumed.step is None else resumed.step
    max_restarts = plan.resolved.settings.engine.max_restarts
    again = plan
    restarts = 0
    reductions = 0
    while True:
        kills_before = memory.oom_kills() or 0
        end = attempt(again)
        kills = (memory.oom_kills() or 0) - kills_before
        end = run_end.out_of_memory(end, kills, again.resolved.batching)
        if end.text:
            show(end)
        # Whoever sent a signal wants the run to end, whatever the ranks made of it.
        if end.kind == "ended" or end.signals or not folder.is_dir():
            return end

        # --reset applies again unless a checkpoint was saved since, which has its effect.
        step = _newest_step(folder)
        if not resumed or (step is not None and step != newest and step > (first or 0)):
            again = replace(again, resume=ResumeRequest(folder))
        else:
            again = replace(again, resume=resumed)
            step = first

        numbers = again.resolved.batching
        if end.micro_batch:  # of a run that had reduced it itself
            numbers = numbers.divided(end.micro_batch)
        if end.kind == "out of memory" and numbers.smaller and reductions < MAX_HALVINGS:
            # settings.yaml and origins.json then show the new numbers and their origin.
            numbers = numbers.divided(numbers.smaller)
            reason = "reduced after out of memory"
            again = replace(again, resolved=again.resolved.with_batching(numbers, reason))
            reductions += 1
            line = f"restart with micro-batches of {numbers.micro_batch}"
            facts = {
                "rank": end.rank,
                "text": end.text,
                "from_step": step,
                "micro_batch": numbers.micro_batch,
                "accumulation": numbers.accumulation,
            }
            append_event(Storage(folder), "out_of_memory", step or 0, facts)
        elif end.kind == "set aside":
            step = newest = first = _newest_step(folder)
            line = "restart"
        elif end.kind in _RESTARTED and restarts < max_restarts:
            restarts += 1
            line = f"restart {restarts} of {max_restarts}"
        else:
            return end
        line += " from the beginning" if step is None else f" from step {step}"
        run_folder.append_log(folder, f"{end.text}\n{end.trace}\n{line}")
        if plan.console:
            print(line, file=sys.stderr, flush=True)
        del end  # its cause holds the model, if it was trained here
        gc.collect()


def _newest_step(folder: Path) -> int | None:
    from gearshift.launcher.run_folder import checkpoint_search  # a new run needs none

    return checkpoint_search.newest_step(folder)


def _finish(plan: RunPlan, folder: RunFolder, end: RunEnd) -> RunEnd:
    """Remove the folder of a run that did nothing, or log its last message."""
    if plan.generation:
        from gearshift.launcher.run_folder import generations

        if not generations.is_latest(folder.path, plan.generation):
            return end  # a later generation of the job writes to it now
    outcome = end.outcome or {}
    # Also at a signal before the first step.
    did_nothing = end.did_nothing or (outcome.get("status") == "stopped" and not outcome["steps"])
    if did_nothing and folder.discard():
        return end
    if folder.is_resumed and did_nothing:  # do not write to the log either
        return replace(end, folder=folder.path) if end.kind == "stopped" else end
    if end.text:
        run_folder.append_log(folder.path, f"{end.text}\n{end.trace}")
    return replace(end, folder=folder.path, wants_report=plan.resolved.settings.report.enabled)


def last_line(end: RunEnd) -> str:
    """The run folder and the next command; empty: there is no folder. Reads the folder."""
    folder = end.folder
    if not folder:
        return ""
    parts = [f"run folder {folder}"]
    if (folder / REPORT).is_file():
        parts.append(f"report: {folder / REPORT}")
    if end.exit_code == exit_codes.FAILURE:
        parts.append(f"details: {folder / LOG}")
    again = f"run again: {program_line('--config', folder / SETTINGS)}"
    if end.exit_code == exit_codes.DONE and not (folder / EXPERIENCES).exists():
        parts.append(next_command(folder) or again)
    elif run_folder.checkpoints(folder):
        parts.append(f"resume: {program_line('resume', folder)}")
    elif end.exit_code != exit_codes.FAILURE:
        parts.append(again)
    return "; ".join(parts)


def next_command(folder: Path) -> str | None:
    """How to use the model of the completed run in `folder`.

    None: the task is custom or cannot predict, or nothing was saved. Reads the folder.
    """
    try:
        values = read_values(folder / SETTINGS)
    except SettingsError:
        return None
    family = FAMILIES.get(str(values.get("model.family")))
    if not family or not family.predicts or not run_folder.checkpoints(folder):
        return None
    if values.get("model.stage") in [stage.name for stage in family.stages if not stage.predicts]:
        return None
    path = str(as_list(values.get("data.path", ""))[0])
    sample = family.prompts.get(path)
    if path.startswith(EMBEDDED) and sample is None:
        return None
    words = ["predict", str(folder)]
    if sample or not family.prompts:
        words += [INPUT, sample or from_here(Path(path))]
    return f"use the model: {program_line(*words)}"
