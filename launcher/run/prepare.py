"""From resolved settings to the end of the run: folder, processes, and what the person is told."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from launcher.base import exit_codes
from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config import deepspeed_config, errors, feature_checks, machine
from launcher.config.machine import Machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.schema import model_name
from launcher.download.fetch import fetch_for_run
from launcher.download.transfer import FetchError
from launcher.resume import find, fork
from launcher.resume.decide import Decision, NothingLeft, decide
from launcher.resume.find import ResumeRequest
from launcher.run import affinity, failures, rank, restart, signals
from launcher.run.experience import is_continual
from launcher.run.failures import Report, Stopped
from launcher.run.job_spec import Job
from launcher.run.start_plan import Plan
from launcher.run_folder import experiences, generations, run_folder
from slurm.address import reachable
from slurm.environment import (
    Generation,
    InvalidEnvironment,
    RankEnvironment,
    read_generation,
    read_rank_environment,
)

PEER_S = 3.0
"""How long a rank that only lost another one holds its tongue."""


ContinualTraining = Callable[[Job, int, bool, Callable[[Report], None], set[int] | None], Report]
"""launcher.continual.loop.train_continually."""


@dataclass(frozen=True)
class Start:
    """A run that can begin: what it is told, and where it stands among other processes."""

    resolved: Resolved
    place: RankEnvironment | None
    """Given by torchrun or srun: this process is one rank of theirs."""
    out: Path | None
    name: str
    """Of the run folder, where the person named none."""
    threads: int | None
    resume: ResumeRequest | None = None
    """What it goes on from."""
    line: str | None = None
    """What is told of that; None: nobody asked to go on."""
    nothing_left: NothingLeft | None = None
    """The run was completed already; None: there is something to do."""
    is_trained: bool = False
    """The first data is trained on; what is left is continual learning."""
    apart: bool = False
    """Its ranks run in processes of their own, also where it is only one."""
    generation: Generation | None = None
    """Which life of which job it is; None: of none."""

    @property
    def folder(self) -> Path:
        """The run folder; of a name of our own a number may come behind it."""
        if self.out is not None:
            return self.out
        return self.resume.source if self.resume else run_folder.PARENT / self.name

    @property
    def plan(self) -> Plan:
        """What it would do."""
        source = self.place.source if self.place else None
        told = (self.resume, self.line, self.apart)
        return Plan(self.resolved, self.folder, self.threads, source, *told)

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that tells the person."""
        return _speaks(self.place)


def prepare(words: CliArgs, out: Path | None, diagnostics: list[Diagnostic]) -> Start:
    """Decide everything, and start nothing. Reads settings files, and JSON of a run that goes on.

    Raises SettingsError with `faults` and all others that can be found.
    """
    diagnostics = list(diagnostics)
    place = told_by(_read_place, diagnostics)
    generation = told_by(read_generation, diagnostics)
    here = (
        machine.detect_machine().for_ranks(place.local_size, place.cpus)
        if place
        else machine.detect_machine()
    )
    return prepare_at(words, out, diagnostics, here, place, generation)


def prepare_at(
    words: CliArgs,
    out: Path | None,
    diagnostics: list[Diagnostic],
    here: Machine,
    place: RankEnvironment | None,
    generation: Generation | None = None,
) -> Start:
    """As `prepare`, on a machine and at a place that may be elsewhere, such as on a cluster."""
    diagnostics = list(diagnostics)
    if place is not None:
        diagnostics += wrong_nproc(words, place)
    decision = None
    try:
        decision = decide(words, out, here, place.world_size if place else None)
        deepspeed_config.layout(decision.resolved, decision.resolved.settings.engine.ds_config)
    except SettingsError as error:
        diagnostics += error.diagnostics
    if out is not None and _speaks(place):
        diagnostics += _wrong_out(out, words, decision)
    if place is not None and decision is not None:
        diagnostics += wrong_restarts(decision.resolved, place)
        diagnostics += feature_checks.check_launcher(place.source, decision.resolved.values)
    if diagnostics or decision is None:
        raise SettingsError(diagnostics)
    resolved, settings = decision.resolved, decision.resolved.settings
    ranks = place.local_size if place else resolved.nproc
    threads = affinity.threads(settings.engine.threads, here.cores, ranks, os.environ)
    more_comes = place is None and is_continual(resolved, decision.resume)
    alone = affinity.uses_torch_default(settings, ranks) and not more_comes
    model, engine = model_name(settings.model), settings.engine.name
    name = run_folder.default_name(model, settings.mode, engine, datetime.now())
    ready = Start(
        resolved,
        place,
        out,
        name,
        None if alone else threads,
        *(decision.resume, decision.line),
        None if more_comes else decision.nothing_left,
        more_comes and decision.nothing_left is not None,
        generation=generation,
    )
    if inside := list(feature_checks.check_run_folder(ready.folder, resolved.values)):
        raise SettingsError(inside)
    return ready


@dataclass(frozen=True)
class Finished:
    """How the run ended, and the folder that holds it; None: nothing was left."""

    report: Report
    folder: Path | None

    def last_line(self, embedded: bool) -> str:
        """Where the run folder is, and what to type next; `embedded`: no data was named."""
        if self.folder is None:
            return ""
        return text(self.report.exit_code, self.folder, embedded)


def carry_out(
    start: Start,
    console: bool,
    tell: Callable[[Report], None],
    load_work: Callable[[], rank.Work] = rank.worker,
    forwarded: set[int] | None = None,
    continual: ContinualTraining | None = None,
) -> Finished:
    """Make the run folder and run to the end, in this process or in those started for it.

    `tell` is given the report of a failure as soon as there is one; `load_work` gives what a rank
    in this process does; `forwarded` collects those that were handed on to other processes;
    `continual` starts the ranks of a run that trains on new files as they arrive. A folder
    in which nothing was trained, because the data is wrong, is taken away again; that of a run
    which goes on stays as it was. Raises SettingsError.
    """
    if (failure := _fetched(start, console)) is not None:
        tell(failure)
        return Finished(failure, None)
    affinity.limit_spinning(os.environ)
    if not start.speaks:
        job = Job(start.resolved, None, False, start.resume, generation=start.generation)
        return Finished(_in_this_process(start, job, tell, load_work), None)
    with signals.startup_deferred():
        folder = _folder(start)
    job = Job(start.resolved, folder.path, console, start.resume, generation=start.generation)
    is_watched = start.place is None and is_continual(start.resolved, start.resume)
    if continual is not None and is_watched:
        ending = continual(job, start.threads or 1, start.is_trained, tell, forwarded)
    elif start.place is None and (start.apart or restart.is_supervised(start.resolved)):
        threads = start.threads or affinity.torch_default()
        ending = restart.supervise(job, threads, tell, forwarded=forwarded)
    else:
        ending = _in_this_process(start, job, tell, load_work)
    if ending.kind == "ended" and ending.text:
        tell(ending)
    return _finished(start, folder, ending)


def _finished(start: Start, folder: run_folder.RunFolder, ending: Report) -> Finished:
    """What is left of a run that came to its `ending`."""
    if start.generation is not None and not generations.is_latest(folder.path, start.generation):
        return Finished(ending, None)  # another life of the job writes there now
    nothing_done = ending.exit_code == exit_codes.INVALID_INPUT or ending.kind == "stopped"
    if nothing_done and folder.discard():
        return Finished(ending, None)
    if folder.is_resumed and nothing_done:  # nothing was written, nor is it now
        return Finished(ending, folder.path if ending.kind == "stopped" else None)
    if ending.text:
        run_folder.append_log(folder.path, f"{ending.text}\n{ending.trace}")
    return Finished(ending, folder.path)


def _fetched(start: Start, console: bool) -> Report | None:
    """Bring the data that is declared, if asked to; how that failed. Raises SettingsError."""
    try:
        with rank.stoppable():
            fetch_for_run(start.resolved.settings, start.place, console, start.speaks)
    except (FetchError, Stopped, KeyboardInterrupt) as fault:
        return failures.failed(fault, start.place.rank if start.place else 0)
    return None


def _folder(start: Start) -> run_folder.RunFolder:
    """The run folder: that of the run which goes on, a new one, or one that begins as a copy."""
    if start.resume is None or not find.holds_run(start.resume.source):
        return run_folder.create(start.resolved, start.out, start.name)
    if find.is_same(start.resume.source, start.folder):
        return run_folder.open_existing(start.folder)
    fill = partial(fork.copy, start.resume.source)
    return run_folder.create(start.resolved, start.out, start.name, fill)


def _in_this_process(
    start: Start,
    job: Job,
    tell: Callable[[Report], None],
    load_work: Callable[[], rank.Work],
) -> Report:
    if start.place is not None:
        os.environ.update(start.place.variables())
    if start.threads is not None:
        os.environ[affinity.VARIABLE] = str(start.threads)
    number = start.place.rank if start.place else 0
    ending = rank.run(job, number, load_work)
    if ending.kind == "peer lost" and start.place is not None:
        # Who failed speaks first; srun and torchrun then end this rank while it waits.
        signals.finish_startup(ending.exit_code)
        time.sleep(PEER_S)
    signals.finish_startup()
    if ending.kind != "ended":
        tell(ending)
    return ending


def _speaks(place: RankEnvironment | None) -> bool:
    return place is None or place.rank == 0


def _read_place(environ: Mapping[str, str]) -> RankEnvironment | None:
    place = read_rank_environment(environ)
    return reachable(place, environ) if place else None


def _wrong_out(out: Path, words: CliArgs, decision: Decision | None) -> list[Diagnostic]:
    """What keeps a run from being written into `out`, where that is not the run that goes on."""
    if words.resume is not None:
        if decision is None:
            return []
        source = decision.resume.source if decision.resume else None
        if source is not None and find.holds_run(source) and find.is_same(source, out):
            return []
    try:
        run_folder.check_writable(out, f"--out {out}")
    except SettingsError as error:
        return list(error.diagnostics)
    return []


T = TypeVar("T")


def told_by(
    read: Callable[[Mapping[str, str]], T | None], diagnostics: list[Diagnostic]
) -> T | None:
    """What the environment tells; None: nothing, or what is wrong."""
    try:
        return read(os.environ)
    except InvalidEnvironment as fault:
        diagnostics.append(
            Diagnostic(fault.message, where="the environment", allowed=fault.allowed)
        )
        return None


def wrong_nproc(words: CliArgs, place: RankEnvironment) -> list[Diagnostic]:
    """Another number of processes than those that were started."""
    option, text = words.options.get("engine.nproc", ("", str(place.local_size)))
    if text == str(place.local_size):
        return []
    return [
        Diagnostic(
            f"{option} {text}, but {place.source} has started {place.local_size} on this machine",
            key="engine.nproc",
            value=text,
            where=f"{option} {text}",
            allowed=f"no {option} under {place.source}, which decides it",
        )
    ]


def wrong_restarts(resolved: Resolved, place: RankEnvironment) -> list[Diagnostic]:
    """Restarts, of processes that only others can start."""
    key = "engine.max_restarts"
    value = resolved.values[key]
    if not value.value:
        return []
    return [
        Diagnostic(
            f"{key} {value.value}, but {place.source} has started the processes, and it alone can "
            "start them again",
            key=key,
            value=value.value,
            where=errors.where(key, value.origin),
            allowed=f"0 under {place.source}; with  --resume auto  a second start goes on",
        )
    ]


def text(exit_code: int, folder: Path, embedded: bool) -> str:
    """What a person reads last; `embedded`: no data was named. Reads the folder."""
    where = f"run folder {folder}"
    failed = exit_code == exit_codes.FAILURE
    if failed:
        where += f"; what happened: {folder / run_folder.LOG}"
    if exit_code != exit_codes.DONE and find.newest_step(folder) is not None:
        return f"{where}; go on: {PROGRAM} resume {_typed(folder)}"
    if failed:
        return where
    if exit_code == exit_codes.DONE and (folder / experiences.NAME).exists():
        return f"{where}; continue: {PROGRAM} resume {_typed(folder)}"
    if exit_code == exit_codes.DONE and embedded:
        return f"{where}; next, text of your own: {PROGRAM} --data FOLDER"
    return f"{where}; run it again: {PROGRAM} --config {_typed(folder / run_folder.SETTINGS)}"


def _typed(path: Path) -> str:
    return shlex.quote(str(path))
