"""Execution of a prepared run: run folder, ranks with their restarts, and the last line for the user."""

from __future__ import annotations

import gc
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment, exit_codes, library_warnings, signals
from gearshift.launcher.base.diagnostics import PROGRAM, FetchError, SettingsError, from_here
from gearshift.launcher.base.signals import ProcessPhase, Stopped, at_signal
from gearshift.launcher.config import batching
from gearshift.launcher.config.command_line import INPUT
from gearshift.launcher.config.paths import EMBEDDED
from gearshift.launcher.config.resolve import fetch_weights
from gearshift.launcher.config.schema import is_of_hub
from gearshift.launcher.config.settings_file import read_values
from gearshift.launcher.run import affinity, run_end
from gearshift.launcher.run.run_end import RunEnd
from gearshift.launcher.run_folder import lock, run_folder
from gearshift.launcher.run_folder.run_folder import RunFolder
from gearshift.launcher.run_folder.run_plan import ResumeRequest, RunPlan
from gearshift.models.catalog import FAMILIES
from gearshift.training.logging.events import append_event
from gearshift.training.resources import cgroup
from gearshift.training.resources.oom import MAX_HALVINGS
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from gearshift.training.callbacks.base import Outcome
    from gearshift.training.evaluation.evaluate import SplitResult

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
    settings = plan.resolved.settings
    try:
        with signals.stoppable():
            if is_of_hub(settings.model):
                fetch_weights(settings.model)
            if settings.download.fetch:
                from gearshift.launcher.config.feature_checks import is_requested

                if is_requested(plan.resolved.values):
                    from gearshift.launcher.download.fetch import fetch

                    fetch(settings.download, console and plan.is_rank_0, plan.launched)
            affinity.limit_spinning(environment.variables())
            if not plan.is_rank_0:
                return train(plan, show)
            with signals.deferred():
                source = None if plan.resume is None else plan.resume.source
                if source is None or not run_folder.is_run_folder(source):
                    folder = run_folder.create(plan.resolved, plan.out, plan.name)
                elif source.resolve() == plan.destination.resolve():
                    run_folder.check_existing(source, f"the run in {source}")
                    folder = RunFolder(plan.destination, is_resumed=True)
                    run_folder.remove_exports_left(folder.path)
                else:
                    folder = run_folder.create(
                        plan.resolved, plan.out, plan.name, partial(copy_run, source)
                    )
            explain = partial(run_end.explained, resolved=plan.resolved, folder=folder.path)
            with at_signal(folder.discard):
                plan = replace(plan, folder=folder.path, console=console)
                end = explain(train(plan, lambda end: show(explain(end))))
    except (
        FetchError,
        Stopped,
        KeyboardInterrupt,
    ) as error:  # between the parts that handle signals
        end = run_end.of_error(error, plan.launched.rank if plan.launched else 0)
        show(end)
    if folder is None:
        return end
    with signals.deferred():
        return _finish(plan, folder, end)


def train_ranks(plan: RunPlan, show: Show) -> RunEnd:
    """Train the ranks of `plan` to their end, in this process or in supervised ones."""
    variables = environment.variables()
    launched = plan.launched
    # In a control group that limits memory the kernel then kills a rank instead of this process.
    handler = signals.installed()
    may_start = environment.is_own_process and (handler is None or not handler.in_job)
    if launched is None and (plan.starts_processes or (may_start and cgroup.memory() is not None)):
        from gearshift.launcher.run.supervisor import supervise

        return repeat(plan, supervise, show)
    if launched is not None:
        variables.update(launched.variables())
    if plan.threads is not None:
        variables[affinity.VARIABLE] = str(plan.threads)
    if launched is None:
        end = repeat(plan, run_rank, show)
    elif (end := run_rank(plan, launched.rank)).text and (end.kind != "ended" or plan.is_rank_0):
        if end.kind == "peer lost":
            # The rank that failed reports first; srun or torchrun then ends this one while it waits.
            code = end.exit_code
            with signals.phase(ProcessPhase.TRAINS, lambda number: os._exit(code)):
                time.sleep(_LOST_PEER_WAIT_S)
        show(end)
    signals.end_start()
    return end


def worker() -> Callable[[RunPlan], Outcome | SplitResult]:
    """The function that a rank runs; imports torch."""
    with environment.importing(), signals.deferred():
        import torch._dynamo  # noqa: F401 - the first optimizer imports it

        from gearshift.launcher.run.worker import work

    return work


def run_rank(plan: RunPlan, rank: int = 0) -> RunEnd:
    """Run the work of a rank in this process; however it ends, that is returned."""

    def report(error: BaseException) -> None:
        if plan.reports is not None:
            run_end.save_and_exit(run_end.of_error(error, rank), plan.reports)

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


def repeat(plan: RunPlan, attempt: Callable[[RunPlan], RunEnd], show: Show) -> RunEnd:
    """Run the ranks to their end by `attempt`, with up to engine.max_restarts restarts after failures.

    After out of memory they restart with half the micro-batch and the same global batch, three
    times at most: a rank cannot retry a step while its peers wait in a collective, and not at all
    if the kernel killed it. After a damaged checkpoint they restart from the one before it. Each
    restart resumes from the newest checkpoint and is printed and
    logged. `show` gets each failure; the last end is returned. Touches the disk.
    """
    folder = plan.folder
    resumed = plan.resume
    assert folder is not None, "these ranks have a run folder"
    newest = begun = None  # the newest step in the run folder, and the step to resume from
    if resumed is not None:  # a new run has no checkpoints to look for
        newest = _newest_step(folder)
        begun = _newest_step(resumed.source) if resumed.step is None else resumed.step
    max_restarts = plan.resolved.settings.engine.max_restarts
    again = plan
    restarts = 0
    reductions = 0
    while True:
        kills = cgroup.oom_kills() or 0
        end = attempt(again)
        kills = (cgroup.oom_kills() or 0) - kills
        end = run_end.out_of_memory(end, kills, again.resolved.batching)
        if end.text:
            show(end)
        if end.kind == "ended" or end.signals or not folder.is_dir():
            return end
        step = _newest_step(folder)
        # --reset applies again unless a checkpoint was saved since, which has its effect.
        if resumed is None or (step is not None and step != newest and step > (begun or 0)):
            again = replace(again, resume=ResumeRequest(folder))
        else:
            again = replace(again, resume=resumed)
            step = begun
        numbers = again.resolved.batching
        used = end.micro_batch or numbers.micro_batch  # a run may have reduced it itself
        accumulation = numbers.micro_batch * numbers.accumulation // used
        failed = replace(numbers, micro_batch=used, accumulation=accumulation)
        less = next(batching.halvings(failed), None) if end.kind == "out of memory" else None
        if less is not None and reductions < MAX_HALVINGS:
            # settings.yaml and origins.json then show the new numbers and their origin.
            smaller = again.resolved.with_batching(less, "reduced after out of memory")
            again = replace(again, resolved=smaller)
            reductions = reductions + 1
            line = f"restart with micro-batches of {less.micro_batch}"
            facts = {"rank": end.rank, "text": end.text, "from_step": step}
            facts |= {"micro_batch": less.micro_batch, "accumulation": less.accumulation}
            append_event(Storage(folder), "out_of_memory", step or 0, facts)
        elif end.kind == "set aside":
            newest = begun = step = _newest_step(folder)
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
    from gearshift.launcher.run_folder.checkpoint_search import (
        newest_step,  # a new run without a failure needs none
    )

    return newest_step(folder)


def _finish(plan: RunPlan, folder: RunFolder, end: RunEnd) -> RunEnd:
    """Remove the folder of a run that did nothing, or log its last message."""
    if plan.generation is not None:
        from gearshift.launcher.run_folder import generations

        if not generations.is_latest(folder.path, plan.generation):
            return end  # a later generation of the job writes to it now
    outcome = end.outcome or {"status": ""}
    # Also at a signal before the first step.
    did_nothing = end.did_nothing or (outcome["status"] == "stopped" and not outcome["steps"])
    if did_nothing and folder.discard():
        return end
    if folder.is_resumed and did_nothing:  # do not write to the log either
        return replace(end, folder=folder.path) if end.kind == "stopped" else end
    if end.text:
        run_folder.append_log(folder.path, f"{end.text}\n{end.trace}")
    return replace(end, folder=folder.path, wants_report=plan.resolved.settings.report.enabled)


def copy_run(source: Path, folder: Path) -> None:
    """Fork: copy the files of the run in `source` to `folder`, without checkpoints, metrics and result.

    Touches the disk. Raises OSError.
    """
    created = {  # by the new run itself
        *(run_folder.CHECKPOINTS, *run_folder.LINKS, run_folder.RESULT, run_folder.REPORT),
        *(run_folder.PREDICTIONS, run_folder.EVALUATIONS, run_folder.SETTINGS, run_folder.ORIGINS),
        *(run_folder.METRICS, lock.NAME, run_folder.SLURM_FOLDER),
    }
    for entry in source.iterdir():
        if entry.name in created or entry.name.removeprefix(".").startswith(run_folder.EXPORT):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, folder / entry.name, follow_symlinks=False)


def last_line(end: RunEnd) -> str:
    """The run folder and the next command; empty: there is no folder. Reads the folder."""
    if (folder := end.folder) is None:
        return ""
    parts = [f"run folder {folder}"]
    resume = f"{PROGRAM} resume {shlex.quote(str(folder))}"
    is_done = end.exit_code == exit_codes.DONE
    has_failed = end.exit_code == exit_codes.FAILURE
    if (folder / run_folder.REPORT).is_file():
        parts.append(f"report: {folder / run_folder.REPORT}")
    if has_failed:
        parts.append(f"details: {folder / run_folder.LOG}")
    if is_done and (folder / run_folder.EXPERIENCES).exists():
        parts.append(f"continue: {resume}")
    elif following := next_command(folder) if is_done else None:
        parts.append(following)
    elif not is_done and run_folder.checkpoints(folder):
        parts.append(f"resume: {resume}")
    elif not has_failed:
        settings = shlex.quote(str(folder / run_folder.SETTINGS))
        parts.append(f"run again: {PROGRAM} --config {settings}")
    return "; ".join(parts)


def next_command(folder: Path, shown: Path | None = None) -> str | None:
    """What to do with the completed run in `folder`: use its model, or train on your own data.

    `shown`: the folder to name in the command, such as that of all stages. None: the task is
    custom or cannot predict, or nothing was saved. Reads the folder.
    """
    try:
        values = read_values(folder / run_folder.SETTINGS)
    except SettingsError:
        return None
    path = str(values.get("data.path", ""))
    family = FAMILIES.get(str(values.get("model.family")))
    if family is None or not run_folder.checkpoints(folder):
        return None
    if values.get("model.stage") in [stage.name for stage in family.stages if not stage.predicts]:
        return None
    if path.startswith(EMBEDDED) and path not in family.prompts:
        return f"train on your own data: {PROGRAM} --model {family.name} --data FOLDER"
    if not family.predicts:
        return None
    words = ["predict", str(shown or folder)]
    if not family.prompts or path in family.prompts:
        words += [INPUT, family.prompts.get(path) or from_here(Path(path))]
    return f"use the model: {PROGRAM} {shlex.join(words)}"
