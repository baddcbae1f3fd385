"""The jobs of a submission, with their runs and folders; and their submission, of all or none."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base import disk, environment
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError
from gearshift.launcher.config import machine
from gearshift.launcher.config.command_line import RUN, CommandLine
from gearshift.launcher.config.errors import about_value
from gearshift.launcher.config.parsing import parse
from gearshift.launcher.config.provenance import BATCH_SETTINGS, CLI_LAYER, STAGED_MODE, CliArgs
from gearshift.launcher.config.schema import PRETRAINED
from gearshift.launcher.run.prepare import check_processes, least_room_bytes, prepare_run_at
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages import execute
from gearshift.launcher.stages.pipeline import Pipeline, distinct, prepare, selected, with_weights
from gearshift.launcher.submit.allocation import FOLDER, Allocation
from gearshift.launcher.submit.options import ALLOCATED, ARRAY, MODE_FLAGS, SWEEP, run_arguments
from gearshift.models.common.hub import HUB
from gearshift.slurm import queue, sbatch, script
from gearshift.slurm.environment import SLURM_FOLDER, RankEnvironment
from gearshift.slurm.sbatch import SbatchError
from gearshift.training.storage import atomic_write

_FIRST = "GEARSHIFT_SWEEP_FIRST"
"""The index of the first line of lines.txt, if it is not 1."""
NEXT = "next"
"""Next to the script of a stage: the id of the job that depends on it; for slurm/next.sh."""
_PART = re.compile(r"(\d+)(?:-(\d+)(?::([1-9]\d*))?)?")
_MOST_COMMON = 8
"""Times the largest world: a global batch that every number of nodes divides may be proposed up to it."""
_MOST = 100_000
"""The largest index; Slurm's own limit, MaxArraySize, is lower on almost every cluster."""
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


def decide(
    command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]
) -> Submission:
    """Check the runs and choose their folders. Reads settings files and run folders.

    Raises SettingsError with `diagnostics` and all further errors.
    """
    if requested.array is not None or SWEEP.flag in command_line.values:
        return _array(command_line, requested, diagnostics)

    def prepare_one(args: CliArgs, out: Path | None) -> RunPlan:
        # Each stage is a job of its own: this process is none of its ranks.
        return replace(_prepare(args, out, [], requested), launched=None)

    args = command_line.args
    out = command_line.out
    argv = command_line.argv
    begun = prepare(args, out, diagnostics, prepare_one)
    if isinstance(begun, Pipeline):
        stages = begun
        # A job for each remaining stage, which reads its settings from the folder of the stage.
        arguments = run_arguments(argv, ("--resume",)) if stages.is_resumed else _downloads(stages)
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
    job = _job(
        name or "default", requested.header, folder, arguments, [SubmittedRun(folder, begun)]
    )
    return Submission(folder, [job], begun.resolved.warnings, begun.line)


def _array(
    command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]
) -> Submission:
    """A job array: one run and one folder per index, with the line of --sweep that has its number."""
    errors = list(diagnostics)
    warnings = list[Diagnostic]()
    runs: list[SubmittedRun] = []
    texts: dict[int, str] = {}
    numbers, _, throttle = (requested.array or "").partition("%")
    origin = f"{ARRAY.flag} {requested.array}"
    path = command_line.values.get(SWEEP.flag)
    try:
        lines = _lines(Path(path)) if path else {}
        wanted = lines if requested.array is None else _indices(numbers, origin)
        if path and (missing := [number for number in wanted if number not in lines]):
            message = f"{path} has no line for element {missing[0]}"
            allowed = f"lines {_ranges(lines)}"
            raise SettingsError.of(message, value=missing[0], where=origin, allowed=allowed)
    except SettingsError as error:
        raise SettingsError([*errors, *error.diagnostics]) from error
    folder = None if command_line.out is None else command_line.out.absolute()
    # An earlier array may have written to the folder.
    jobs_only = folder is not None and run_folder.has_only_jobs(folder / SLURM_FOLDER)
    if folder is not None and not (
        jobs_only and (folder / SLURM_FOLDER / run_folder.LINES).is_file()
    ):
        errors += run_folder.writing_errors(folder, f"--out {command_line.out}")
    shared = run_arguments(command_line.argv)
    for number in wanted:
        text = lines.get(number, "")
        where = f"{path}:{number}" if path else origin
        try:
            words = shlex.split(text)
        except ValueError as error:
            errors.append(
                Diagnostic(f"cannot parse a line of options: {error}", value=text, where=where)
            )
            continue
        if wrong := [word for word in words if word.partition("=")[0] in ALLOCATED]:
            message = f"{wrong[0]} applies to all runs of an array, not to one line"
            errors.append(
                Diagnostic(message, where=f"{where}: {wrong[0]}", allowed="options of  run")
            )
            continue
        line = parse(RUN, [*shared, *words])
        args, invalid = with_weights(line.args)
        if selected(line.args):
            message = f"mode {STAGED_MODE} needs one job per stage: an array element is one job"
            invalid.append(Diagnostic(message, where=where, allowed="--stage NAME"))
        try:
            begun = _prepare(args, line.out, [*line.diagnostics, *invalid], requested)
        except SettingsError as error:
            for new in error.diagnostics:
                if words and new.severity == "error":  # the line may have caused it
                    new = replace(new, where=": ".join(filter(None, (where, new.where))))
                errors.append(new)
            continue
        folder = folder or run_folder.unused_path(f"sweep-{begun.name}").absolute()
        out = line.out.absolute() if line.out else folder / str(number)
        if not run_folder.is_run_folder(out):
            errors += run_folder.writing_errors(out, f"--out {out}")
        runs.append(SubmittedRun(out, begun, str(number)))
        texts[number] = shlex.join([*run_arguments(words), *_pinned(begun), f"--out={out}"])
        warnings += begun.resolved.warnings
    if errors or folder is None:
        raise SettingsError(distinct(errors))
    header = {**requested.header, "array": _ranges(texts) + (f"%{throttle}" if throttle else "")}
    first = min(1, *texts)
    if first == 0:
        header["export"] = f"{header.get('export') or 'ALL'},{_FIRST}=0"
    arguments = [str(folder / SLURM_FOLDER / run_folder.LINES), *shared]
    content = "".join(f"{texts.get(number, '')}\n" for number in range(first, max(texts) + 1))
    return Submission(
        folder, [_job("sweep", header, folder, arguments, runs, content)], distinct(warnings)
    )


def _lines(path: Path) -> dict[int, str]:
    """The lines of options by number from 1, without comments (`#`) and empty lines."""
    where = f"{SWEEP.flag} {path}"
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise SettingsError.of(
            f"cannot read {path}: {reason}", value=str(path), where=where
        ) from error
    lines = {number: text for number, text in enumerate(texts, 1) if text.partition("#")[0].strip()}
    if not lines:
        allowed = "one line of options per run, such as  --lr 1e-3 --seed 1"
        raise SettingsError.of(f"{path} is empty", value=str(path), where=where, allowed=allowed)
    return lines


def _indices(numbers: str, where: str) -> list[int]:
    """The indices of a range such as `0-6:2,9`."""
    indices: set[int] = set()
    for part in numbers.split(","):
        match = _PART.fullmatch(part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if match is None or last < first or last > _MOST:
            allowed = f"a range: 1-8, 0-30:10, 1,4,7 or 1-8%2, up to {_MOST}"
            message = f"invalid {ARRAY.flag} {numbers!r}"
            raise SettingsError.of(message, value=numbers, where=where, allowed=allowed)
        indices.update(range(first, last + 1, int(match[3] or 1)))
    return sorted(indices)


def _ranges(numbers: Iterable[int]) -> str:
    """The value of --array: `1-4,7`."""
    groups = groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0])
    spans = [[number for _, number in group] for _, group in groups]
    return ",".join(f"{span[0]}-{span[-1]}" if span[1:] else f"{span[0]}" for span in spans)


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


def _downloads(stages: Pipeline) -> list[str]:
    """The options of a download that a job of a stage repeats: no file can ask for it."""
    values = stages.left[0][1].resolved.values
    folder = values["download.folder"]
    if not values["download.fetch"].value:
        return []
    words = ["--download-data"]
    if folder.origin.layer == CLI_LAYER:
        words.append(f"--set=download.folder={folder.value}")
    return words


def _pinned(run: RunPlan) -> list[str]:
    """The commit of a model of the hub: a requeued job loads it, too."""
    resolved = run.resolved
    pinned = str(resolved.values[PRETRAINED].value) if PRETRAINED in resolved.keys.decided else ""
    return [f"--set={PRETRAINED}={pinned}"] if pinned.startswith(HUB) else []


def _prepare(
    args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], requested: Allocation
) -> RunPlan:
    """Prepare one run on a node of the cluster, in its largest world. Starts nothing."""
    # like this machine but for these
    node = machine.detect_machine()
    ranks = requested.ranks
    if requested.cpus is not None:
        node = replace(node, cores=requested.cpus * ranks)
    if requested.gpus:
        node = replace(node, gpus=requested.gpus, device="cuda")
    source: Literal["torchrun", "srun"] = "torchrun" if requested.is_torchrun else "srun"

    def prepare_in(size: int) -> RunPlan:
        is_world = size > 1 or requested.is_torchrun
        rank_0 = RankEnvironment(0, size, 0, ranks, 0, "", 0, source) if is_world else None
        return prepare_run_at(args, out, node, rank_0)

    errors = list(diagnostics)
    begun: RunPlan | None = None
    unsplit: dict[int, Diagnostic] = {}
    sizes = [nodes * ranks for nodes in requested.nodes]
    # The smallest and the largest world, and at most 16 of those between.
    tried = [*sizes[: -1 : -(-len(sizes) // 16)], sizes[-1]]
    for size in tried:
        try:
            begun = prepare_in(size)
        except SettingsError as error:
            for one in error.diagnostics:
                if one.key in BATCH_SETTINGS and len(sizes) > 1:
                    unsplit[size] = one
                else:
                    errors.append(one)
    if unsplit:
        errors.append(_unsplit(unsplit, tried, math.lcm(*sizes), ranks, prepare_in))
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
        raise SettingsError(distinct(errors))
    return begun


def _unsplit(
    unsplit: Mapping[int, Diagnostic],
    sizes: Sequence[int],
    common: int,
    ranks: int,
    prepare_in: Callable[[int], object],
) -> Diagnostic:
    """The error of a global batch that fits some of the `sizes` of a world only, `ranks` on each node.

    A fix for one size would be wrong for another: it fits their `common` multiple, or it chooses one.
    """
    last = max(unsplit)
    if len(unsplit) == len(sizes) and len(distinct(unsplit.values())) == 1:
        return unsplit[last]  # of numbers that do not fit together in any world
    error = unsplit[last]
    fitting = [size for size in sizes if size not in unsplit]
    if common > _MOST_COMMON * sizes[-1]:
        nodes = f"--nodes {(fitting or [last])[-1] // ranks}"
        return replace(error, fix=nodes if fitting else f"{nodes} {error.fix}")
    try:
        prepare_in(common)
    except SettingsError as raised:
        errors = [one for one in raised.diagnostics if one.key in BATCH_SETTINGS]
        text = f"among {common} processes"
        of_all = f"among {sizes[0]} to {sizes[-1]} processes"
        return replace(errors[0], message=errors[0].message.replace(text, of_all))
    return error


def check_room(submission: Submission) -> None:
    """Check that the disk of each run folder has room for the weights of one checkpoint at least.

    Raises SettingsError.
    """
    for run in submission.runs:
        needed_bytes = least_room_bytes(run.begun.resolved)
        disk.check_writable(run.folder, f"--out {run.folder}", needed_bytes=needed_bytes)


def submit_all(submission: Submission, requested: Allocation) -> list[str]:
    """Make the folders and submit the jobs, each after the one before; their ids.

    Asks Slurm first whether they can ever start. Raises SettingsError; no file and no job is left
    behind then, nor after Ctrl-C.
    """
    ids: list[str] = []
    with ExitStack() as undo:
        try:
            for job in submission.jobs:
                sbatch.test(job.text, requested.passthrough, environment.variables())
            if submission.stages is not None:
                undo.callback(execute.make(submission.stages).discard)
            for job in submission.jobs:
                _make_folder(job.script.with_name("log"), undo)
                _write(job.script, job.text, undo)
                if job.lines is not None:
                    _write(job.script.with_name(run_folder.LINES), job.lines, undo)
            for job in submission.jobs:
                options = [*requested.passthrough, *(dependency(ids[-1]) if ids else [])]
                ids.append(sbatch.submit(job.script, options, environment.variables()))
                undo.callback(queue.cancel, ids[-1])
            for job, following in zip(submission.jobs, ids[1:], strict=False):
                _write(job.script.with_name(NEXT), f"{following}\n", undo)
        except SbatchError as error:
            raise SettingsError.of(f"Slurm rejected the job: {error}", where="sbatch") from error
        except OSError as error:
            message = (
                f"cannot write {error.filename or submission.folder}: {error.strerror or error}"
            )
            allowed = "a writable run folder that all nodes share"
            raise SettingsError.of(
                message, value=str(submission.folder), allowed=allowed
            ) from error
        undo.pop_all()
    return ids


def dependency(job_id: str) -> list[str]:
    """The sbatch options of a job that starts only after job `job_id` succeeds."""
    return [f"--dependency=afterok:{job_id}", "--kill-on-invalid-dep=yes"]


def _make_folder(path: Path, undo: ExitStack) -> None:
    for folder in [*reversed(path.parents), path]:
        if not folder.exists():
            folder.mkdir()
            undo.callback(_remove, folder)


def _write(path: Path, text: str, undo: ExitStack) -> None:
    if not path.exists():
        undo.callback(_remove, path)
    atomic_write(path, text.encode())  # a running job of this run may still read the earlier script


def _remove(path: Path) -> None:
    """Remove a file, or a folder that others have not written to. Disk access."""
    with suppress(OSError):
        path.rmdir() if path.is_dir() else path.unlink()
