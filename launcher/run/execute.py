"""Execution of a prepared run: run folder, ranks, and the last line for the user."""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from launcher.base import environment, exit_codes, signals
from launcher.base.diagnostics import PROGRAM, FetchError, SettingsError, from_here
from launcher.base.signals import Stopped, at_signal
from launcher.config.options import INPUT
from launcher.config.paths import EMBEDDED
from launcher.config.provenance import DEFAULT_MODE
from launcher.config.resolve import fetch_weights
from launcher.config.schema import is_of_hub
from launcher.config.settings_file import read_values
from launcher.run import affinity, failures, rank, restart
from launcher.run.failures import RankReport
from launcher.run.job_spec import Job
from launcher.run.prepare import PreparedRun
from launcher.run_folder import lock, run_folder
from launcher.run_folder.run_folder import RunFolder
from models.catalog import FAMILIES

_LOST_PEER_WAIT_S = 3.0
"""How long a rank that lost a peer waits before it reports: the peer reports first."""
Show = Callable[[RankReport], None]
Train = Callable[[PreparedRun, Job, Show], RankReport]
"""Trains the ranks of a job to the end of the run, and shows a failure at once."""


@dataclass(frozen=True)
class FinishedRun:
    """How a run ended, and its folder; None: the folder was removed."""

    report: RankReport
    folder: Path | None
    result: Mapping[str, Any] = field(default_factory=dict)
    """What the end is as JSON; empty: nothing was trained."""
    wants_report: bool = False
    """Whether the page about the run is to be written into its folder."""

    @property
    def last_line(self) -> str:
        """The run folder and the next command. Reads the folder."""
        return "" if self.folder is None else render_last_line(self.report.exit_code, self.folder)


def execute_run(start: PreparedRun, console: bool, show: Show, train: Train | None = None) -> FinishedRun:
    """Create the run folder and train to the end with `train`, by default `train_ranks`.

    `show` gets the report of a failure at once. The folder of a run that did not train, because of
    invalid data, is removed; that of a resumed run stays as it was. Raises SettingsError.
    """
    train = train or train_ranks
    settings = start.resolved.settings
    if settings.download.fetch or is_of_hub(settings.model):
        from launcher.download.fetch import fetch_for_run

        try:
            with rank.stoppable():
                fetch_weights(settings.model)
                fetch_for_run(settings, start.launched, console, start.is_rank_0)
        except (FetchError, Stopped, KeyboardInterrupt) as error:
            ending = failures.failed(error, start.launched.rank if start.launched else 0)
            show(ending)
            return FinishedRun(ending, None)
    affinity.limit_spinning(environment.variables())
    job = Job(start.resolved, None, False, start.resume, generation=start.generation)
    if not start.is_rank_0:
        return _finished(train(start, job, show), None)
    folder = None
    try:
        with rank.stoppable():
            with signals.critical(), signals.deferred():
                folder = _create_folder(start)
            explain = partial(failures.explained, resolved=start.resolved, folder=folder.path)
            with at_signal(folder.discard):
                job = replace(job, folder=folder.path, console=console)
                ending = explain(train(start, job, lambda report: show(explain(report))))
    except (Stopped, KeyboardInterrupt) as error:  # between the parts that handle signals
        ending = failures.failed(error, 0)
        show(ending)
    if folder is None:
        return _finished(ending, None)
    if ending.kind == "ended" and ending.text:
        show(ending)
    with signals.deferred():
        finished = _finish(start, folder, ending)
    if folder.start_lock is not None:  # the traceback of a failure may keep it
        folder.start_lock.release()
    return finished


def train_ranks(
    start: PreparedRun,
    job: Job,
    show: Show,
    load_work: Callable[[], rank.Work] = rank.worker,
    forwarded: set[int] | None = None,
) -> RankReport:
    """Train the ranks of `job` to their end, in this process or in supervised ones.

    `load_work` returns the function that a rank of this process runs; `forwarded` collects signals
    sent to other processes.
    """
    if start.launched is not None:
        return _train_here(start, load_work, job, show, set())
    if start.starts_processes:
        threads = start.threads or affinity.torch_default()
        return restart.supervise(job, threads, show, forwarded=forwarded)
    return restart.repeat(job, partial(_train_here, start, load_work), show, forwarded)


def _train_here(
    start: PreparedRun, load_work: Callable[[], rank.Work], job: Job, show: Show, forwarded: set[int]
) -> RankReport:
    """Train one rank in this process, or in a fork of it."""
    variables = environment.variables()
    if start.launched is not None:
        variables.update(start.launched.variables())
    if start.threads is not None:
        variables[affinity.VARIABLE] = str(start.threads)
    if start.launched is None and rank.can_fork():
        report = rank.run_forked(job, load_work, forwarded)
    else:
        report = rank.run(job, start.launched.rank if start.launched else 0, load_work)
    if report.kind == "peer lost" and start.launched is not None:
        # The rank that failed reports first; srun or torchrun then ends this one while it waits.
        signals.end_start(report.exit_code)
        time.sleep(_LOST_PEER_WAIT_S)
    signals.end_start()
    if report.kind != "ended":
        show(report)
    return report


def _finish(start: PreparedRun, folder: RunFolder, ending: RankReport) -> FinishedRun:
    """Remove the folder of a run that did nothing, or log its last message."""
    if start.generation is not None:
        from launcher.run_folder import generations

        if not generations.is_latest(folder.path, start.generation):
            return _finished(ending, None)  # a later generation of the job writes to it now
    did_nothing = ending.exit_code == exit_codes.INVALID_INPUT or ending.kind == "stopped"
    if ending.outcome is not None and ending.outcome["status"] == "stopped":
        did_nothing |= not ending.outcome["steps"]  # a signal before the first step
    if did_nothing and folder.discard():
        return _finished(ending, None)
    if folder.is_resumed and did_nothing:  # do not write to the log either
        return _finished(ending, folder.path if ending.kind == "stopped" else None)
    if ending.text:
        run_folder.append_log(folder.path, f"{ending.text}\n{ending.trace}")
    return _finished(ending, folder.path, start.resolved.settings.report.enabled)


def _finished(ending: RankReport, folder: Path | None, wants_report: bool = False) -> FinishedRun:
    return FinishedRun(ending, folder, ending.outcome or {}, wants_report)


def _create_folder(start: PreparedRun) -> RunFolder:
    """The run folder: that of the resumed run, a new one, or a fork."""
    if start.resume is None or not run_folder.is_run_folder(start.resume.source):
        return run_folder.create(start.resolved, start.out, start.name)
    if start.resume.source.resolve() == start.folder.resolve():
        return run_folder.open_existing(start.folder)
    fill = partial(copy_run, start.resume.source)
    return run_folder.create(start.resolved, start.out, start.name, fill)


def copy_run(source: Path, folder: Path) -> None:
    """Fork: copy the files of the run in `source` to `folder`, without checkpoints and result.

    Metrics are copied whole: the new run removes lines after its resume point. Touches the disk.
    Raises OSError.
    """
    created = {  # by the new run itself
        *(run_folder.CHECKPOINTS, *run_folder.LINKS, run_folder.RESULT, run_folder.REPORT),
        *(run_folder.PREDICTIONS, run_folder.EVALUATIONS, run_folder.SETTINGS, run_folder.ORIGINS),
        *(lock.NAME, run_folder.SLURM_FOLDER),
    }
    for entry in sorted(source.iterdir()):
        if entry.name in created or entry.name.startswith(run_folder.EXPORT):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, folder / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, folder / entry.name, follow_symlinks=False)


def render_last_line(exit_code: int, folder: Path) -> str:
    """The last line for the user. Reads the folder."""
    from launcher.run_folder import checkpoint_search, experiences  # after the training

    where, quoted = f"run folder {folder}", shlex.quote(str(folder))
    if (folder / run_folder.REPORT).is_file():
        where += f"; report: {folder / run_folder.REPORT}"
    if exit_code == exit_codes.FAILURE:
        where += f"; details: {folder / run_folder.LOG}"
    if exit_code == exit_codes.DONE:
        if (folder / experiences.NAME).exists():
            return f"{where}; continue: {PROGRAM} resume {quoted}"
        if following := next_command(folder):
            return f"{where}; {following}"
    elif checkpoint_search.newest_step(folder) is not None:
        return f"{where}; resume: {PROGRAM} resume {quoted}"
    elif exit_code == exit_codes.FAILURE:
        return where
    settings = shlex.quote(str(folder / run_folder.SETTINGS))
    return f"{where}; run again: {PROGRAM} --config {settings}"


def next_command(folder: Path, shown: Path | None = None) -> str | None:
    """What to do with the completed run in `folder`: use its model, or train on your own data.

    `shown`: the folder to name in the command, such as that of all stages. None: the task is
    custom, or nothing was saved. Reads the folder.
    """
    from launcher.run_folder import checkpoint_search

    try:
        values = read_values(folder / run_folder.SETTINGS)
    except SettingsError:
        return None
    path, mode = str(values.get("data.path", "")), values.get("mode")
    if (family := FAMILIES.get(str(values.get("model.family")))) is None:
        return None
    if path not in family.prompts and path.startswith(EMBEDDED):
        name = ":".join(filter(None, (family.name, values.get("model.size"))))
        mode = "" if mode == DEFAULT_MODE else f" --mode {mode}"
        return f"train on your own data: {PROGRAM} --model {name}{mode} --data FOLDER"
    without = [stage.name for stage in family.stages if not stage.predicts]
    if values.get("model.stage") in without or checkpoint_search.newest_step(folder) is None:
        return None
    words = ["predict", str(shown or folder)]
    if path in family.prompts:
        words += [INPUT, family.prompts[path]]
    elif not family.prompts:
        words += [INPUT, from_here(Path(path))]
    return f"use the model: {PROGRAM} {shlex.join(words)}"
