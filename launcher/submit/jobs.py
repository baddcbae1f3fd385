"""The jobs of a submission, with their runs and folders; writes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.errors import about_value
from launcher.config.provenance import FILES_LAYER, STAGED_MODE, CliArgs
from launcher.config.schema import PRETRAINED
from launcher.run.prepare import PreparedRun, check_processes, prepare_run_at
from launcher.run_folder import checkpoint_search, run_folder
from launcher.run_folder.run_folder import RunFolder
from launcher.submit import sweep
from launcher.submit.allocation import FOLDER, Allocation
from launcher.submit.options import ARRAY, MODE_FLAGS, SWEEP, run_arguments
from models.common.hub import HUB
from slurm import script

LOGS = "log"
NEXT = "next"
"""Next to the script of a stage: the id of the job that depends on it; for slurm/next.sh."""
_FIRST = "GEARSHIFT_SWEEP_FIRST"
"""The index of the first line of lines.txt, if it is not 1."""
_MARK = re.compile("%[0-9]*[A-Za-z%]")
SLURM = "slurm"
"""Subfolder of a run folder for its jobs."""
Select = Callable[[sweep.Element], tuple[CliArgs, list[Diagnostic]]]
"""Gives the arguments of an element's run, and the errors among them."""


@dataclass(frozen=True)
class SubmittedRun:
    """One run of a job."""

    folder: Path
    begun: PreparedRun
    name: str = ""
    """The name of the stage or array element; empty: the only run of the submission."""
    index: int | None = None
    """The index of the array element."""


@dataclass(frozen=True)
class SlurmJob:
    """One Slurm job."""

    folder: Path
    """Its subfolder slurm/ holds script and logs; for a single run the run folder."""
    text: str
    """The job script."""
    runs: Sequence[SubmittedRun]
    lines: str | None = None
    """Of an array: the text of lines.txt, with the arguments of one element per line."""

    @property
    def script(self) -> Path:
        """The file of the job script."""
        return self.folder / SLURM / run_folder.JOB_SCRIPT

    @property
    def logs(self) -> Path:
        """The folder of its logs."""
        return self.folder / SLURM / LOGS

    def log(self, job_id: str, run: SubmittedRun) -> Path:
        """The log of a run; requeues append to it."""
        element = "" if run.index is None else f"_{run.index}"
        return self.logs / f"{job_id}{element}.out"


@dataclass(frozen=True)
class Submission:
    """All jobs of one `submit`; each depends on the one before."""

    folder: Path
    jobs: Sequence[SlurmJob]
    warnings: Sequence[Diagnostic] = ()
    lines: Sequence[str] = ()
    """Lines to print about runs that are resumed."""
    make_folder: Callable[[], RunFolder] | None = None
    """Makes the folder of a new staged run."""


def single(
    command_line: CommandLine,
    requested: Allocation,
    args: CliArgs,
    diagnostics: Sequence[Diagnostic],
) -> Submission:
    """A job of one run. Raises SettingsError with `diagnostics` and all further errors."""
    begun = prepare(args, command_line.out, diagnostics, requested)
    is_new = begun.out is None and begun.resume is None  # a default name gets a free folder
    folder = (run_folder.unused_path(begun.name) if is_new else begun.folder).absolute()
    arguments = run_arguments(command_line.argv)
    if command_line.args.resume == checkpoint_search.AUTO and command_line.out is None:
        # The run that is the newest now.
        arguments = run_arguments(command_line.argv, ("--resume",))
        arguments += [f"--resume={begun.folder.absolute()}"] if begun.resume else []
    arguments += _pinned(begun)
    job = _job(command_line.args, arguments, requested, SubmittedRun(folder, begun))
    return Submission(folder, [job], begun.resolved.warnings, [begun.line] if begun.line else [])


def staged(
    command_line: CommandLine,
    requested: Allocation,
    folder: Path,
    stages: Sequence[SubmittedRun],
    is_resumed: bool,
) -> Submission:
    """A job for each remaining stage, which reads its settings from the folder of the stage."""
    arguments = run_arguments(command_line.argv, ("--resume",)) if is_resumed else []
    jobs = []
    for run in stages:
        header = {"job-name": f"gearshift-{STAGED_MODE}-{run.name}", **requested.header}
        resumed = [*arguments, f"--resume={run.folder}"]
        jobs.append(_job(CliArgs(), resumed, replace(requested, header=header), run))
    return Submission(folder, jobs)


def _job(
    args: CliArgs, arguments: Sequence[str], requested: Allocation, run: SubmittedRun
) -> SlurmJob:
    name = args.mode if args.mode in script.SHIPPED and args.mode != STAGED_MODE else None
    if name is not None:
        arguments = run_arguments(arguments, MODE_FLAGS)  # the job file selects the mode
        arguments = [*([f"--mode={name}"] if name == "default" else []), *arguments]
    logs = _pattern(run.folder / SLURM / LOGS, "%j.out")
    text = _render(name or "default", requested, logs, [*arguments, f"--out={run.folder}"])
    return SlurmJob(run.folder, text, [run])


def array(
    command_line: CommandLine,
    requested: Allocation,
    diagnostics: Sequence[Diagnostic],
    select: Select,
) -> Submission:
    """A job array: one run and one folder per element.

    Reads the file of --sweep. Raises SettingsError with `diagnostics` and all further errors.
    """
    try:
        elements, throttle = sweep.read(command_line, requested.array)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from error
    folder = None if command_line.out is None else command_line.out.absolute()
    runs: list[SubmittedRun] = []
    errors = list(diagnostics)
    # An earlier array may have written to the folder.
    jobs_only = folder is not None and run_folder.has_only_jobs(folder / SLURM)
    if folder is not None and not (jobs_only and (folder / SLURM / run_folder.LINES).is_file()):
        errors += run_folder.writing_errors(folder, f"--out {command_line.out}")
    warnings: list[Diagnostic] = []
    if SWEEP.flag not in command_line.values and len(elements) > 1:
        warnings.append(
            Diagnostic(
                f"{ARRAY.flag} without {SWEEP.flag}: all {len(elements)} runs have the same "
                "arguments and train the same model",
                where=f"{ARRAY.flag} {requested.array}",
                allowed=f"{SWEEP.flag} FILE with one line of further arguments per run",
                severity="warning",
            )
        )
    texts: dict[int, str] = {}
    first = 0 if any(element.index == 0 for element in elements) else 1
    for element in elements:
        begun = _element(element, requested, select, errors)
        if begun is None:
            continue
        if folder is None:
            folder = run_folder.unused_path(f"sweep-{begun.name}").absolute()
        chosen = element.command_line.out
        out = chosen.absolute() if chosen else folder / str(element.index)
        if not run_folder.is_run_folder(out):
            errors += run_folder.writing_errors(out, f"--out {out}")
        runs.append(SubmittedRun(out, begun, str(element.index), element.index))
        arguments = [*run_arguments(element.arguments), *_pinned(begun), f"--out={out}"]
        texts[element.index] = shlex.join(arguments)
        warnings += [new for new in begun.resolved.warnings if new not in warnings]
    if errors or folder is None:
        raise SettingsError(errors)
    header = {**requested.header, "array": sweep.indices(texts) + throttle}
    if first == 0:
        header["export"] = f"{header.get('export') or 'ALL'},{_FIRST}=0"
    logs = _pattern(folder / SLURM / LOGS, "%A_%a.out")
    arguments = [str(folder / SLURM / run_folder.LINES), *run_arguments(command_line.argv)]
    text = _render("sweep", replace(requested, header=header), logs, arguments)
    lines = "".join(f"{texts.get(n, '')}\n" for n in range(first, max(texts) + 1))
    return Submission(folder, [SlurmJob(folder, text, runs, lines)], warnings)


def _pinned(run: PreparedRun) -> list[str]:
    """The commit of a model of the hub that a settings file names: a requeued job loads it, too."""
    setting = run.resolved.values.get(PRETRAINED)
    if setting is None or setting.origin.layer != FILES_LAYER:
        return []
    return [f"--set={PRETRAINED}={setting.value}"] if str(setting.value).startswith(HUB) else []


def _element(
    element: sweep.Element, requested: Allocation, select: Select, errors: list[Diagnostic]
) -> PreparedRun | None:
    """The run of an element; None: it has errors, which are added to `errors`."""
    args, invalid = select(element)
    diagnostics = [*element.command_line.diagnostics, *invalid]
    try:
        return prepare(args, element.command_line.out, diagnostics, requested)
    except SettingsError as error:
        for new in error.diagnostics:
            if element.arguments and new.severity == "error":  # the line may have caused it
                new = replace(new, where=": ".join(filter(None, (element.where, new.where))))
            if new not in errors:
                errors.append(new)
        return None


def _render(name: str, requested: Allocation, logs: str, arguments: Sequence[str]) -> str:
    header = {**requested.header, "output": logs, "chdir": str(Path.cwd())}
    try:
        return script.render(name, header, arguments, str(FOLDER))
    except ValueError as error:
        raise SettingsError.of(str(error), allowed="names without line breaks") from error


def _pattern(logs: Path, name: str) -> str:
    """The path of the logs; sbatch replaces the patterns in `name` only.

    Raises SettingsError: Slurm 22.05 replaces some patterns of a folder even if escaped.
    """
    if _MARK.search(str(logs)):
        message = f"{logs} contains a pattern of sbatch, such as %j"
        allowed = "a run folder without % before a letter in its path"
        raise SettingsError.of(message, value=str(logs), allowed=allowed)
    return str(logs / name)


def prepare(
    args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], requested: Allocation
) -> PreparedRun:
    """Prepare one run on a node of the cluster, in its largest world. Starts nothing.

    Reads settings files, and the folder of a resumed run. Raises SettingsError with `diagnostics`
    and all further errors.
    """
    node = requested.machine(machine.detect_machine())
    errors = list(diagnostics)
    begun: PreparedRun | None = None
    worlds = requested.rank_environments()
    # The smallest and the largest world, and at most 16 of those between.
    for ranks in [*worlds[: -1 : -(-len(worlds) // 16)], worlds[-1]]:
        try:
            begun = prepare_run_at(args, out, [], node, ranks)
        except SettingsError as error:
            known = {diagnostic.message for diagnostic in errors}
            errors += [new for new in error.diagnostics if new.message not in known]
    if begun is not None:
        values, last = begun.resolved.values, worlds[-1]
        if last is None:
            errors += check_processes(values, requested.ranks, "srun")
        engine = ENGINES[begun.resolved.settings.engine.name]
        if last is not None and last.world_size > (engine.processes or last.world_size):
            problem = f"is for one process, and the job has {last.world_size}"
            others = [other.name for other in ENGINES.values() if other.processes is None]
            parts = {"allowed": ", ".join(others), "fix": f"--engine {others[0]}"}
            errors.append(about_value(values, "engine.name", problem, **parts))
    if errors or begun is None:
        raise SettingsError(errors)
    return begun
