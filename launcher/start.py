"""From resolved settings to the end of the run: folder, processes, and what the person is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from launcher import cores, ds_layout, exit_codes, machine, rank, run_folder, supervise
from launcher.handover import Job
from launcher.messages import PROGRAM, Fault, SettingsError
from launcher.plan import Plan
from launcher.report import Report
from launcher.resolve import resolve
from launcher.resolved import Resolved, Words
from launcher.resumption import Resume
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

    @property
    def plan(self) -> Plan:
        """What it would do."""
        folder = self.out or run_folder.PARENT / self.name
        source = self.place.source if self.place else None
        return Plan(self.resolved, folder, self.threads, source)

    @property
    def speaks(self) -> bool:
        """Whether this process is the one that tells the person."""
        return self.place is None or self.place.rank == 0


def prepare(words: Words, out: Path | None, faults: list[Fault]) -> Start:
    """Decide everything, and start nothing. Reads settings files.

    Raises SettingsError with `faults` and all others that can be found.
    """
    faults = list(faults)
    here = machine.look()
    place = _place(faults)
    if place is not None:
        faults += _wrong_nproc(words, place)
    resolved = None
    try:
        if out is not None:
            run_folder.check(out, f"--out {out}")
    except SettingsError as error:
        faults += error.faults
    try:
        resolved = resolve(words, here, place.world_size if place else None)
        ds_layout.layout(resolved, resolved.settings.engine.ds_config)
    except SettingsError as error:
        faults += error.faults
    if faults or resolved is None:
        raise SettingsError(faults)
    settings = resolved.settings
    ranks = place.local_size if place else resolved.nproc
    threads = cores.threads(settings.engine.threads, here.cores, ranks, os.environ)
    alone = ranks == 1 and settings.engine.threads is None
    model = f"{settings.model.family}:{settings.model.size}"
    name = run_folder.name(model, settings.mode, settings.engine.name, datetime.now())
    return Start(resolved, place, out, name, None if alone else threads)


@dataclass(frozen=True)
class Finished:
    """How the run ended, and the folder that holds it; None: nothing was left."""

    report: Report
    folder: Path | None

    def last_line(self, embedded: bool) -> str:
        """Where the run folder is, and what to type next; `embedded`: no data was named."""
        if self.folder is None:
            return ""
        if self.report.exit_code == exit_codes.FAULT:
            return f"run folder {self.folder}; what happened: {self.folder / run_folder.LOG}"
        if self.report.exit_code == exit_codes.DONE and embedded:
            return f"run folder {self.folder}; next, text of your own: {PROGRAM} --data FOLDER"
        again = f"{PROGRAM} --config {self.folder / run_folder.SETTINGS}"
        return f"run folder {self.folder}; run it again: {again}"


def carry_out(
    start: Start,
    console: bool,
    tell: Callable[[Report], None],
    load_work: Callable[[], rank.Work] = rank.worker,
) -> Finished:
    """Make the run folder and run to the end, in this process or in those started for it.

    `tell` is given the report of a failure as soon as there is one; `load_work` gives what a rank
    in this process does. A folder in which nothing was trained, because the data is wrong, is
    taken away again. Raises SettingsError.
    """
    cores.share_politely(os.environ)
    if not start.speaks:
        job = Job(start.resolved, None, False, start.resume)
        return Finished(_in_this_process(start, job, tell, load_work), None)
    folder = run_folder.make(start.resolved, start.out, start.name)
    job = Job(start.resolved, folder.path, console, start.resume)
    if start.place is None and start.resolved.nproc > 1:
        ending = supervise.supervise(job, start.threads or 1, tell)
    else:
        ending = _in_this_process(start, job, tell, load_work)
    if ending.kind == "ended" and ending.text:
        tell(ending)
    nothing_done = ending.exit_code == exit_codes.WRONG_WORDS or ending.kind == "stopped"
    if nothing_done and folder.discard():
        return Finished(ending, None)
    if ending.text:
        run_folder.log(folder.path, f"{ending.text}\n{ending.trace}")
    return Finished(ending, folder.path)


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


def _place(faults: list[Fault]) -> Place | None:
    try:
        return read_place(os.environ)
    except EnvironmentFault as fault:
        faults.append(Fault(fault.what, place="the environment", legal=fault.legal))
        return None


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
