"""The jobs of a submission, with their runs and folders; writes nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import machine
from launcher.config.command_line import CommandLine
from launcher.config.errors import about_value
from launcher.config.provenance import STAGED_MODE, CliArgs
from launcher.config.schema import PRETRAINED
from launcher.run.prepare import check_processes, prepare_run_at
from launcher.run_folder import checkpoint_search, run_folder
from launcher.run_folder.run_plan import RunPlan
from launcher.stages.pipeline import Pipeline, prepare_pipeline, selected, with_weights
from launcher.submit import sweep
from launcher.submit.allocation import FOLDER, Allocation
from launcher.submit.options import MODE_FLAGS, SWEEP, run_arguments
from models.common.hub import HUB
from slurm import script
from slurm.environment import SLURM_FOLDER, RankEnvironment

_FIRST = "GEARSHIFT_SWEEP_FIRST"
"""The index of the first line of lines.txt, if it is not 1."""
_MARK = re.compile("%[0-9]*[A-Za-z%]")


@dataclass(frozen=True)
class SubmittedRun:
    """One run of a job."""

    folder: Path
    begun: RunPlan
    name: str = ""
    """The name of the stage, or index of the array; empty: the only run of the submission."""


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
        return self.folder / SLURM_FOLDER / run_folder.JOB_SCRIPT

    def log(self, job_id: str, run: SubmittedRun) -> Path:
        """The log of a run; requeues append to it."""
        element = "" if self.lines is None else f"_{run.name}"
        return self.folder / SLURM_FOLDER / "log" / f"{job_id}{element}.out"


@dataclass(frozen=True)
class Submission:
    """All jobs of one `submit`; each depends on the one before."""

    folder: Path
    jobs: Sequence[SlurmJob]
    warnings: Sequence[Diagnostic] = ()
    line: str | None = None
    """The line to print about a resumed run."""
    stages: Pipeline | None = None
    """A new staged run, whose folders are to be made."""

    @property
    def runs(self) -> list[SubmittedRun]:
        """The runs of all jobs."""
        return [run for job in self.jobs for run in job.runs]


def decide(command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]) -> Submission:
    """Check the runs and choose their folders. Reads settings files and run folders.

    Raises SettingsError with `diagnostics` and all further errors.
    """
    if requested.array is not None or SWEEP.flag in command_line.values:
        return _array(command_line, requested, diagnostics)

    def prepare_stage(args: CliArgs, out: Path | None, diagnostics: list[Diagnostic]) -> RunPlan:
        # Each stage is a job of its own: this process is none of its ranks.
        return replace(_prepare(args, out, diagnostics, requested), launched=None)

    args, out, argv = command_line.args, command_line.out, command_line.argv
    if stages := prepare_pipeline(args, out, list(diagnostics), prepare_stage):
        # A job for each remaining stage, which reads its settings from the folder of the stage.
        arguments = run_arguments(argv, ("--resume",)) if stages.is_resumed else []
        jobs = []
        for stage, begun in stages.left:
            folder = stages.folder.absolute() / stage.folder.name
            header = {"job-name": f"gearshift-{STAGED_MODE}-{stage.name}", **requested.header}
            run = SubmittedRun(folder, begun, stage.name)
            resumed = [*arguments, f"--resume={folder}", f"--out={folder}"]
            jobs.append(_job("default", header, folder, resumed, [run]))
        made = None if stages.is_resumed else stages
        folder = stages.folder.absolute()
        return Submission(folder, jobs, stages.warnings, stages.line, made)
    args, errors = with_weights(args)
    begun = _prepare(args, out, [*diagnostics, *errors], requested)
    is_new = begun.out is None and begun.resume is None  # a default name gets a free folder
    folder = (run_folder.unused_path(begun.name) if is_new else begun.destination).absolute()
    resumes_newest = args.resume == checkpoint_search.AUTO and out is None  # the newest of now
    name = args.mode if args.mode in script.SHIPPED and args.mode != STAGED_MODE else None
    without = MODE_FLAGS if name is not None else ()  # the job file selects the mode
    arguments = [f"--mode={name}"] if name == "default" else []
    arguments += run_arguments(argv, (*without, "--resume") if resumes_newest else without)
    if resumes_newest and begun.resume:
        arguments.append(f"--resume={begun.destination.absolute()}")
    arguments += [*_pinned(begun), f"--out={folder}"]
    job = _job(name or "default", requested.header, folder, arguments, [SubmittedRun(folder, begun)])
    return Submission(folder, [job], begun.resolved.warnings, begun.line)


def _array(command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]) -> Submission:
    """A job array: one run and one folder per element. Reads the file of --sweep."""
    try:
        elements, throttle = sweep.read(command_line, requested.array)
    except SettingsError as error:
        raise SettingsError([*diagnostics, *error.diagnostics]) from error
    folder = None if command_line.out is None else command_line.out.absolute()
    runs: list[SubmittedRun] = []
    errors, warnings = list(diagnostics), list[Diagnostic]()
    # An earlier array may have written to the folder.
    jobs_only = folder is not None and run_folder.has_only_jobs(folder / SLURM_FOLDER)
    if folder is not None and not (jobs_only and (folder / SLURM_FOLDER / run_folder.LINES).is_file()):
        errors += run_folder.writing_errors(folder, f"--out {command_line.out}")
    texts: dict[int, str] = {}
    first = min(1, *(element.index for element in elements))
    for element in elements:
        line = element.command_line
        args, invalid = with_weights(line.args)
        if selected(line.args):
            message = f"mode {STAGED_MODE} needs one job per stage: an array element is one job"
            invalid.append(Diagnostic(message, where=element.where, allowed="--stage NAME"))
        try:
            begun = _prepare(args, line.out, [*line.diagnostics, *invalid], requested)
        except SettingsError as error:
            for new in error.diagnostics:
                if element.arguments and new.severity == "error":  # the line may have caused it
                    new = replace(new, where=": ".join(filter(None, (element.where, new.where))))
                if new not in errors:
                    errors.append(new)
            continue
        if folder is None:
            folder = run_folder.unused_path(f"sweep-{begun.name}").absolute()
        out = line.out.absolute() if line.out else folder / str(element.index)
        if not run_folder.is_run_folder(out):
            errors += run_folder.writing_errors(out, f"--out {out}")
        runs.append(SubmittedRun(out, begun, str(element.index)))
        arguments = [*run_arguments(element.arguments), *_pinned(begun), f"--out={out}"]
        texts[element.index] = shlex.join(arguments)
        warnings += [new for new in begun.resolved.warnings if new not in warnings]
    if errors or folder is None:
        raise SettingsError(errors)
    header = {**requested.header, "array": sweep.indices(texts) + throttle}
    if first == 0:
        header["export"] = f"{header.get('export') or 'ALL'},{_FIRST}=0"
    arguments = [str(folder / SLURM_FOLDER / run_folder.LINES), *run_arguments(command_line.argv)]
    lines = "".join(f"{texts.get(n, '')}\n" for n in range(first, max(texts) + 1))
    return Submission(folder, [_job("sweep", header, folder, arguments, runs, lines)], warnings)


def _job(
    name: str,
    header: Mapping[str, str | None],
    folder: Path,
    arguments: Sequence[str],
    runs: Sequence[SubmittedRun],
    lines: str | None = None,
) -> SlurmJob:
    """A job by the shipped file `name`. Raises SettingsError."""
    logs = folder / SLURM_FOLDER / "log"
    if _MARK.search(str(logs)):  # Slurm 22.05 replaces some patterns of a folder even if escaped
        message = f"{logs} contains a pattern of sbatch, such as %j"
        allowed = "a run folder without % before a letter in its path"
        raise SettingsError.of(message, value=str(logs), allowed=allowed)
    output = str(logs / ("%j.out" if lines is None else "%A_%a.out"))
    try:
        header = {**header, "output": output, "chdir": str(Path.cwd())}
        text = script.render(name, header, arguments, str(FOLDER))
    except ValueError as error:
        raise SettingsError.of(str(error), allowed="names without line breaks") from error
    return SlurmJob(folder, text, runs, lines)


def _pinned(run: RunPlan) -> list[str]:
    """The commit of a model of the hub: a requeued job loads it, too."""
    setting = run.resolved.values.get(PRETRAINED)
    if setting is None or PRETRAINED not in run.resolved.keys.decided:
        return []
    return [f"--set={PRETRAINED}={setting.value}"] if str(setting.value).startswith(HUB) else []


def _prepare(
    args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], requested: Allocation
) -> RunPlan:
    """Prepare one run on a node of the cluster, in its largest world. Starts nothing."""
    node, ranks = machine.detect_machine(), requested.ranks  # like this machine but for these
    if requested.cpus is not None:
        node = replace(node, cores=requested.cpus * ranks)
    if requested.gpus:
        node = replace(node, gpus=requested.gpus, device="cuda")
    errors = list(diagnostics)
    begun: RunPlan | None = None
    sizes = [nodes * ranks for nodes in requested.nodes]
    # The smallest and the largest world, and at most 16 of those between.
    for size in [*sizes[: -1 : -(-len(sizes) // 16)], sizes[-1]]:
        is_world = size > 1 or requested.is_torchrun
        source: Literal["torchrun", "srun"] = "torchrun" if requested.is_torchrun else "srun"
        rank_0 = RankEnvironment(0, size, 0, ranks, 0, "", 0, source) if is_world else None
        try:
            begun = prepare_run_at(args, out, [], node, rank_0)
        except SettingsError as error:
            known = {diagnostic.message for diagnostic in errors}
            errors += [new for new in error.diagnostics if new.message not in known]
    if begun is not None:
        values = begun.resolved.values
        if sizes[-1] == 1 and not requested.is_torchrun:
            errors += check_processes(values, ranks, "srun")
        engine = ENGINES[begun.resolved.settings.engine.name]
        if sizes[-1] > (engine.processes or sizes[-1]):
            problem = f"is for one process, and the job has {sizes[-1]}"
            others = [other.name for other in ENGINES.values() if other.processes is None]
            parts = {"allowed": ", ".join(others), "fix": f"--engine {others[0]}"}
            errors.append(about_value(values, "engine.name", problem, **parts))
    if errors or begun is None:
        raise SettingsError(errors)
    return begun
