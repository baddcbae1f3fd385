"""From resolved settings to the end of the run: folder, processes, and what the person is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from launcher import ds_layout, exit_codes, last_line, machine, run_folder
from launcher.going_on import fork, resume
from launcher.going_on.decide import Decision, NothingLeft, decide
from launcher.going_on.resumption import Resume
from launcher.messages import Fault, SettingsError
from launcher.plan import Plan
from launcher.processes import cores, rank, restarts
from launcher.processes.handover import Job
from launcher.processes.report import Report
from launcher.settings import refusals
from launcher.settings.resolved import Resolved, Words
from launcher.settings.schema import model_name
from slurm.environment import EnvironmentFault, Place, read_place


@dataclass(frozen=True)
class Start:
    """A run that can begin: what it is told, and where it stands among other processes."""

    resolved: Resolved
    place: Place | None
    """Given by torchrun or srun: this process is one rank of theirs."""
    out: Path | None
    name: str
    """Of the run folder, where the person named none."""
    threads: int | None
    resume: Resume | None = None
    """What it goes on from."""
    line: str | None = None
    """What is told of that; None: nobody asked to go on."""
    nothing_left: NothingLeft | None = None
    """The run was completed already; None: there is something to do."""

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
        return Plan(self.resolved, self.folder, self.threads, source, self.resume, self.line)

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that tells the person."""
        return _speaks(self.place)


def prepare(words: Words, out: Path | None, faults: list[Fault]) -> Start:
    """Decide everything, and start nothing. Reads settings files, and JSON of a run that goes on.

    Raises SettingsError with `faults` and all others that can be found.
    """
    faults = list(faults)
    here = machine.look()
    place = _place(faults)
    if place is not None:
        faults += _wrong_nproc(words, place)
    decision = None
    try:
        decision = decide(words, out, here, place.world_size if place else None)
        ds_layout.layout(decision.resolved, decision.resolved.settings.engine.ds_config)
    except SettingsError as error:
        faults += error.faults
    if out is not None and _speaks(place):
        faults += _wrong_out(out, words, decision)
    if place is not None and decision is not None:
        faults += _wrong_restarts(decision.resolved, place)
    if faults or decision is None:
        raise SettingsError(faults)
    resolved = decision.resolved
    settings = resolved.settings
    ranks = place.local_size if place else resolved.nproc
    threads = cores.threads(settings.engine.threads, here.cores, ranks, os.environ)
    alone = cores.are_left_to_torch(settings, ranks)
    model, engine = model_name(settings.model), settings.engine.name
    name = run_folder.name(model, settings.mode, engine, datetime.now())
    return Start(
        resolved,
        place,
        out,
        name,
        None if alone else threads,
        decision.resume,
        decision.line,
        decision.nothing_left,
    )


@dataclass(frozen=True)
class Finished:
    """How the run ended, and the folder that holds it; None: nothing was left."""

    report: Report
    folder: Path | None

    def last_line(self, embedded: bool) -> str:
        """Where the run folder is, and what to type next; `embedded`: no data was named."""
        if self.folder is None:
            return ""
        return last_line.text(self.report.exit_code, self.folder, embedded)


def carry_out(
    start: Start,
    console: bool,
    tell: Callable[[Report], None],
    load_work: Callable[[], rank.Work] = rank.worker,
) -> Finished:
    """Make the run folder and run to the end, in this process or in those started for it.

    `tell` is given the report of a failure as soon as there is one; `load_work` gives what a rank
    in this process does. A folder in which nothing was trained, because the data is wrong, is
    taken away again; that of a run which goes on stays as it was. Raises SettingsError.
    """
    cores.share_politely(os.environ)
    if not start.speaks:
        job = Job(start.resolved, None, False, start.resume)
        return Finished(_in_this_process(start, job, tell, load_work), None)
    folder = _folder(start)
    job = Job(start.resolved, folder.path, console, start.resume)
    if start.place is None and restarts.is_supervised(start.resolved):
        ending = restarts.supervise(job, start.threads or 1, tell)
    else:
        ending = _in_this_process(start, job, tell, load_work)
    if ending.kind == "ended" and ending.text:
        tell(ending)
    nothing_done = ending.exit_code == exit_codes.WRONG_WORDS or ending.kind == "stopped"
    if nothing_done and folder.discard():
        return Finished(ending, None)
    if folder.goes_on and nothing_done:  # nothing was written, nor is it now
        return Finished(ending, folder.path if ending.kind == "stopped" else None)
    if ending.text:
        run_folder.log(folder.path, f"{ending.text}\n{ending.trace}")
    return Finished(ending, folder.path)


def _folder(start: Start) -> run_folder.RunFolder:
    """The run folder: that of the run which goes on, a new one, or one that begins as a copy."""
    if start.resume is None or not resume.holds_run(start.resume.source):
        return run_folder.make(start.resolved, start.out, start.name)
    if resume.is_same(start.resume.source, start.folder):
        return run_folder.reopen(start.folder)
    fill = partial(fork.copy, start.resume.source)
    return run_folder.make(start.resolved, start.out, start.name, fill)


def _in_this_process(
    start: Start,
    job: Job,
    tell: Callable[[Report], None],
    load_work: Callable[[], rank.Work],
) -> Report:
    if start.place is not None:
        os.environ.update(start.place.variables())
    if start.threads is not None:
        os.environ[cores.VARIABLE] = str(start.threads)
    number = start.place.rank if start.place else 0
    ending = rank.run(job, number, load_work)
    if ending.kind != "ended":
        tell(ending)
    return ending


def _speaks(place: Place | None) -> bool:
    return place is None or place.rank == 0


def _place(faults: list[Fault]) -> Place | None:
    try:
        return read_place(os.environ)
    except EnvironmentFault as fault:
        faults.append(Fault(fault.what, place="the environment", legal=fault.legal))
        return None


def _wrong_out(out: Path, words: Words, decision: Decision | None) -> list[Fault]:
    """What keeps a run from being written into `out`, where that is not the run that goes on."""
    if words.resume is not None:
        if decision is None:
            return []
        source = decision.resume.source if decision.resume else None
        if source is not None and resume.holds_run(source) and resume.is_same(source, out):
            return []
    try:
        run_folder.check(out, f"--out {out}")
    except SettingsError as error:
        return list(error.faults)
    return []


def _wrong_nproc(words: Words, place: Place) -> list[Fault]:
    option, text = words.options.get("engine.nproc", ("", str(place.local_size)))
    if text == str(place.local_size):
        return []
    return [
        Fault(
            f"{option} {text}, but {place.source} has started {place.local_size} on this machine",
            key="engine.nproc",
            value=text,
            place=f"{option} {text}",
            legal=f"no {option} under {place.source}, which decides it",
        )
    ]


def _wrong_restarts(resolved: Resolved, place: Place) -> list[Fault]:
    key = "engine.max_restarts"
    value = resolved.values[key]
    if not value.value:
        return []
    return [
        Fault(
            f"{key} {value.value}, but {place.source} has started the processes, and it alone can "
            "start them again",
            key=key,
            value=value.value,
            place=refusals.place(key, value.origin),
            legal=f"0 under {place.source}; with  --resume auto  a second start goes on",
        )
    ]
