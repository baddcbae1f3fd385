"""What is queued: each job, the runs in it and their folders, before anything is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.cli.parser import Request
from launcher.config.resolved import STAGED, CliArgs
from launcher.resume import find
from launcher.run.prepare import Start
from launcher.run_folder import run_folder
from launcher.stages import pipeline
from launcher.stages import selection as asked_stages
from launcher.submit import checks, sweep
from launcher.submit import words as words_of
from launcher.submit.asked import FOLDER, Asked
from slurm import script

SCRIPT = "job.sbatch"
LINES = "lines.txt"
LOGS = "log"
NEXT = "next"
"""Beside the script of a stage: the id of the job that waits for it; slurm/next.sh reads it."""
_FIRST = "GEARSHIFT_SWEEP_FIRST"
"""The element whose words stand in the first line, where that is not 1."""
_MARK = re.compile("%[0-9]*[A-Za-z%]")
SLURM = "slurm"
"""In a run folder: all that belongs to its jobs."""


@dataclass(frozen=True)
class Run:
    """One run of a job."""

    folder: Path
    begun: Start
    name: str = ""
    """Of a stage or an element; empty: it is the only one."""
    index: int | None = None
    """Of an array's element."""


@dataclass(frozen=True)
class Job:
    """A job as it will be submitted."""

    folder: Path
    """Whose slurm/ holds its script and its logs; of one run the run folder."""
    text: str
    """The job script."""
    runs: Sequence[Run]
    lines: str | None = None
    """Of an array: the file with a line of words for each element."""

    @property
    def script(self) -> Path:
        """The file of the job script."""
        return self.folder / SLURM / SCRIPT

    @property
    def logs(self) -> Path:
        """The folder of its logs."""
        return self.folder / SLURM / LOGS

    def log(self, job_id: str, run: Run) -> Path:
        """The log of a run; it goes on through requeues."""
        element = "" if run.index is None else f"_{run.index}"
        return self.logs / f"{job_id}{element}.out"


@dataclass(frozen=True)
class Submission:
    """All jobs of one `submit`; each waits for the one before."""

    folder: Path
    jobs: Sequence[Job]
    warnings: Sequence[Diagnostic] = ()
    lines: Sequence[str] = field(default=())
    """What is told of runs that go on."""
    stages: pipeline.Pipeline | None = None
    """The chain whose stages they are."""


def decide(request: Request, asked: Asked, diagnostics: Sequence[Diagnostic]) -> Submission:
    """Check what would be run, and choose the folders. Reads settings files and JSON of runs.

    Raises SettingsError with `faults` and all others that can be found.
    """
    if asked.array is not None or sweep.file_of(request) is not None:
        return _array(request, asked, diagnostics)

    def one(words: CliArgs, out: Path | None, found: list[Diagnostic]) -> Start:
        # The processes of each stage are a job of their own.
        return replace(checks.prepare(words, out, found, asked), place=None)

    stages = pipeline.prepare_pipeline(request.words, request.out, list(diagnostics), one)
    if stages is not None:
        return _stages(request, asked, stages)
    words, wrong = asked_stages.with_weights(request.words)
    begun = checks.prepare(words, request.out, [*diagnostics, *wrong], asked)
    folder = _folder(begun).absolute()
    typed = _going_on(request, begun)
    job = _job(request.words, typed, asked, Run(folder, begun))
    return Submission(folder, [job], begun.resolved.warnings, [begun.line] if begun.line else [])


def _folder(begun: Start) -> Path:
    """The run folder: of a name of our own one that is free."""
    is_new = begun.out is None and begun.resume is None
    return run_folder.free(begun.name) if is_new else begun.folder


def _going_on(request: Request, begun: Start) -> list[str]:
    """The words of the job: what goes on is named, whatever else has begun until then."""
    typed = words_of.of_run(request.typed)
    if request.words.resume != find.AUTO or request.out is not None:
        return typed
    typed = words_of.of_run(request.typed, ("--resume",))
    return [*typed, f"--resume={begun.folder.absolute()}"] if begun.resume else typed


def _job(words: CliArgs, typed: Sequence[str], asked: Asked, run: Run) -> Job:
    """A job of one run."""
    name = words.mode if words.mode in script.SHIPPED and words.mode != STAGED else None
    if name is not None:
        typed = words_of.of_run(typed, words_of.MODES)  # the job file says the mode
        typed = [*([f"--mode={name}"] if name == "default" else []), *typed]
    logs = _pattern(run.folder / SLURM / LOGS, "%j.out")
    text = _render(name or "default", asked, logs, [*typed, f"--out={run.folder}"])
    return Job(run.folder, text, [run])


def _stages(request: Request, asked: Asked, found: pipeline.Pipeline) -> Submission:
    """A job for each stage that is left. All it is told is in the folder that it goes on in."""
    typed = words_of.of_run(request.typed, ("--resume",)) if found.is_resumed else []
    folder = found.folder.absolute()
    jobs = []
    for link, begun in found.left:
        run = Run(folder / link.folder.name, begun, link.name)
        header = {"job-name": f"gearshift-{STAGED}-{link.name}", **asked.header}
        words = [*typed, f"--resume={run.folder}"]
        jobs.append(_job(CliArgs(), words, replace(asked, header=header), run))
    return Submission(
        folder, jobs, found.warnings, [found.resume_line] if found.resume_line else [], found
    )


def _array(request: Request, asked: Asked, diagnostics: Sequence[Diagnostic]) -> Submission:
    """A job whose elements are runs, one folder each."""
    elements, throttle = sweep.read(request, asked.array, list(diagnostics))
    folder = None if request.out is None else request.out.absolute()
    runs: list[Run] = []
    found: list[Diagnostic] = list(diagnostics)
    warnings: list[Diagnostic] = list(sweep.warnings(request, elements))
    texts: dict[int, str] = {}
    first = 0 if any(element.index == 0 for element in elements) else 1
    for element in elements:
        begun = _element(element, asked, found)
        if begun is None:
            continue
        if folder is None:
            folder = run_folder.free(f"sweep-{begun.name}").absolute()
        asked_out = element.request.out
        out = asked_out.absolute() if asked_out else folder / str(element.index)
        runs.append(Run(out, begun, str(element.index), element.index))
        texts[element.index] = sweep.line([*words_of.of_run(element.words), f"--out={out}"])
        warnings += [one for one in begun.resolved.warnings if one not in warnings]
    if found or folder is None:
        raise SettingsError(found)
    typed = words_of.of_run(request.typed)
    header = {**asked.header, "array": sweep.indices(list(texts), throttle)}
    if first == 0:
        header["export"] = f"{header.get('export') or 'ALL'},{_FIRST}=0"
    logs = _pattern(folder / SLURM / LOGS, "%A_%a.out")
    words = [str(folder / SLURM / LINES), *typed]
    text = _render("sweep", replace(asked, header=header), logs, words)
    lines = "".join(f"{texts.get(n, '')}\n" for n in range(first, max(texts) + 1))
    return Submission(folder, [Job(folder, text, runs, lines)], warnings)


def _element(element: sweep.Element, asked: Asked, found: list[Diagnostic]) -> Start | None:
    """The run of an element; None: something is wrong with it, which `found` is given."""
    words, wrong = asked_stages.with_weights(element.request.words)
    diagnostics = [*element.request.diagnostics, *wrong]
    if asked_stages.stages(element.request.words):
        diagnostics.append(sweep.staged(element))
    try:
        return checks.prepare(words, element.request.out, diagnostics, asked)
    except SettingsError as error:
        for fault in error.diagnostics:
            placed = sweep.placed(fault, element)
            if placed not in found:
                found.append(placed)
        return None


def _render(name: str, asked: Asked, logs: str, words: Sequence[str]) -> str:
    header = {**asked.header, "output": logs, "chdir": str(Path.cwd())}
    try:
        return script.render(name, header, words, str(FOLDER))
    except ValueError as error:
        raise SettingsError(
            [Diagnostic(str(error), allowed="names without line breaks")]
        ) from error


def _pattern(logs: Path, name: str) -> str:
    """The path of logs in which sbatch replaces what stands in `name`, and nothing else.

    Raises SettingsError: Slurm 22.05 replaces some marks of a folder however they are escaped.
    """
    if _MARK.search(str(logs)):
        what = f"{logs}: sbatch would read a mark such as %j in it"
        allowed = "a run folder whose path holds no % before a letter"
        raise SettingsError([Diagnostic(what, value=str(logs), allowed=allowed)])
    return str(logs / name)
