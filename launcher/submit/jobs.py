"""The jobs of a submission, with their runs and folders; and their submission, of all or none."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gearshift.launcher.base import disk, environment
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, invalid, plain
from gearshift.launcher.config import machine
from gearshift.launcher.config.batching import GLOBAL, batch_line
from gearshift.launcher.config.command_line import RUN, CommandLine
from gearshift.launcher.config.errors import about
from gearshift.launcher.config.feature_checks import check_processes
from gearshift.launcher.config.parsing import parse
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    STAGED_MODE,
    CliArgs,
    Resolved,
    hub_names,
)
from gearshift.launcher.config.schema import DATA_PATH, PRETRAINED
from gearshift.launcher.run.prepare import prepare_run_at
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.run_plan import Pipeline, RunPlan
from gearshift.launcher.stages import execute
from gearshift.launcher.stages.pipeline import distinct, prepare, selected, with_weights
from gearshift.launcher.submit.allocation import Allocation
from gearshift.launcher.submit.options import ARRAY, SWEEP, run_arguments
from gearshift.slurm import sbatch, script
from gearshift.slurm.environment import SLURM_FOLDER, RankEnvironment
from gearshift.slurm.sbatch import SlurmError
from gearshift.training.storage import atomic_write

NEXT = "next"
"""Next to the script of a stage: the id of the job that depends on it; for slurm/next.sh."""
_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")
_MOST_COMMON = 8
"""Times the largest world, up to which a batch that every number of nodes divides is proposed."""
_MARK = re.compile("%[0-9]*[A-Za-z%]")


@dataclass(frozen=True)
class SubmittedRun:
    """One run of a job."""

    folder: Path
    plan: RunPlan
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
    if SWEEP in command_line.values:
        return _sweep(command_line, requested, diagnostics)

    def prepare_one(args: CliArgs, out: Path | None) -> RunPlan:
        # Each stage is a job of its own: this process is none of its ranks.
        return replace(_prepare(args, out, [], requested), launched=None)

    ready = prepare(command_line.args, command_line.out, diagnostics, prepare_one)
    if ready.is_staged:
        return _stages(command_line, requested, ready)
    return _single(command_line, requested, ready.plan)


def _stages(command_line: CommandLine, requested: Allocation, stages: Pipeline) -> Submission:
    """A job for each remaining stage, which reads its settings from the folder of the stage."""
    arguments = run_arguments(command_line.argv, ("--resume",))
    if not stages.is_resumed:
        arguments = _downloads(stages)  # the folder of a stage has the other options
    folder = stages.folder.absolute()
    jobs = []
    for stage, plan in stages.left:
        stage_folder = folder / stage.folder.name
        jobs.append(
            _job(
                "default",
                {"job-name": f"gearshift-{STAGED_MODE}-{stage.name}", **requested.header},
                stage_folder,
                [*arguments, f"--resume={stage_folder}", f"--out={stage_folder}"],
                [SubmittedRun(stage_folder, plan, stage.name)],
            )
        )
    return Submission(
        folder,
        jobs,
        stages.warnings,
        stages.line,
        stages=None if stages.is_resumed else stages,
    )


def _single(command_line: CommandLine, requested: Allocation, plan: RunPlan) -> Submission:
    """The job of one run."""
    args = command_line.args
    folder = plan.destination
    if plan.out is None and plan.resume is None:  # a default name gets a free folder
        folder = run_folder.unused_path(plan.name)
    folder = folder.absolute()

    name = args.mode or "default"
    if name not in script.SHIPPED or name == STAGED_MODE:
        name = "default"
    # The newest run of now, not that of the time when the job starts.
    resumes_newest = args.resume == checkpoint_search.AUTO and command_line.out is None
    arguments = run_arguments(command_line.argv, ("--resume",) if resumes_newest else ())
    if resumes_newest and plan.resume:
        arguments.append(f"--resume={plan.destination.absolute()}")
    arguments += [*_pinned(plan), f"--out={folder}"]

    job = _job(name, requested.header, folder, arguments, [SubmittedRun(folder, plan)])
    return Submission(folder, [job], plan.resolved.warnings, plan.line)


def _sweep(
    command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]
) -> Submission:
    """A job array: one run and one folder per line of --sweep, or per line that --array chooses."""
    errors = list(diagnostics)
    path = Path(command_line.values[SWEEP])
    try:
        lines = _lines(path)
        if requested.array is not None:
            lines = _of_array(lines, path, requested.array)
    except SettingsError as error:
        raise SettingsError([*errors, *error.diagnostics]) from error
    folder = None
    if command_line.out:
        folder = command_line.out.absolute()
        # An array may be submitted again.
        if not (folder / SLURM_FOLDER / run_folder.LINES).is_file():
            errors += run_folder.writing_errors(folder, f"--out {command_line.out}")

    warnings: list[Diagnostic] = []
    runs: list[SubmittedRun] = []
    texts: dict[int, str] = {}
    shared = run_arguments(command_line.argv)
    for number, text in lines.items():
        where = f"{path}:{number}"
        try:
            words = shlex.split(text)
        except ValueError as error:
            message = f"cannot parse a line of options: {error}"
            errors.append(Diagnostic(message, value=text, where=where))
            continue
        try:
            line = parse(RUN, [*shared, *words])
            plan = _prepare_line(line, where, requested)
        except SettingsError as error:
            errors += error.diagnostics
            continue
        if folder is None:
            folder = run_folder.unused_path(f"sweep-{plan.name}").absolute()
        out = line.out.absolute() if line.out else folder / str(number)
        # An element that is submitted again finds the run folder of the first time.
        if not run_folder.is_run_folder(out):
            errors += run_folder.writing_errors(out, f"--out {out}")
        runs.append(SubmittedRun(out, plan, str(number)))
        options = [*run_arguments(words), *_pinned(plan), f"--out={out}"]
        texts[number] = shlex.join(options)
        warnings += plan.resolved.warnings
    if errors or folder is None:
        raise SettingsError(distinct(errors))

    throttle = re.sub("^[^%]*", "", requested.array or "")
    header = {**requested.header, "array": _ranges(texts) + throttle}
    content = ""
    for number in range(1, max(texts) + 1):  # line K belongs to element K
        content += texts.get(number, "") + "\n"
    arguments = [str(folder / SLURM_FOLDER / run_folder.LINES), *shared]
    job = _job("sweep", header, folder, arguments, runs, content)
    return Submission(folder, [job], distinct(warnings))


def _lines(path: Path) -> dict[int, str]:
    """The lines of options by number from 1, without comments (`#`) and empty lines."""
    where = f"{SWEEP} {path}"
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {path}: {error}"
        raise SettingsError.of(message, value=str(path), where=where) from error
    lines = {}
    for number, text in enumerate(texts, start=1):
        if text.partition("#")[0].strip():
            lines[number] = text
    if not lines:
        raise SettingsError.of(
            f"{path} is empty",
            value=str(path),
            where=where,
            allowed="one line of options per run, such as  --lr 1e-3 --seed 1",
        )
    return lines


def _of_array(lines: Mapping[int, str], path: Path, array: str) -> dict[int, str]:
    """Those of the `lines` that --array chooses, such as `1-7,9%2`."""
    elements = {}
    for part in array.partition("%")[0].split(","):
        match = _PART.fullmatch(part)
        indices = range(0)
        if match:
            indices = range(int(match[1]), int(match[2] or match[1]) + 1)
        if not indices or not lines.keys() >= set(indices):
            allowed = f"lines {_ranges(lines)} of {path}, such as 1-8%2"
            raise SettingsError([invalid(ARRAY, array, allowed)])
        for number in indices:
            elements[number] = lines[number]
    return dict(sorted(elements.items()))


def _prepare_line(line: CommandLine, where: str, requested: Allocation) -> RunPlan:
    """The run of a line of --sweep. Raises SettingsError, whose errors name the line."""
    args, invalid = with_weights(line.args)
    if selected(line.args):
        invalid.append(
            Diagnostic(
                f"mode {STAGED_MODE} needs one job per stage: an array element is one job",
                where=where,
                allowed="--stage NAME",
            )
        )
    try:
        return _prepare(args, line.out, [*line.diagnostics, *invalid], requested)
    except SettingsError as error:
        diagnostics = []
        for diagnostic in error.diagnostics:  # the line may have caused it
            place = f"{where}: {diagnostic.where}" if diagnostic.where else where
            diagnostics.append(replace(diagnostic, where=place))
        raise SettingsError(diagnostics) from error


def _ranges(numbers: Iterable[int]) -> str:
    """The value of --array: `1-4,7`."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][-1] == number - 1:
            spans[-1].append(number)
        else:
            spans.append([number])
    texts = [f"{span[0]}-{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans]
    return ",".join(texts)


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
        raise SettingsError.of(
            f"{logs} contains a pattern of sbatch, such as %j",
            value=str(logs),
            allowed="a run folder without % before a letter in its path",
        )
    log = "%j.out" if lines is None else "%A_%a.out"
    call = "gearshift_job" if lines is None else "gearshift_sweep"
    header = {**header, "output": str(logs / log), "chdir": str(Path.cwd())}
    try:
        text = script.render(name, header, call, arguments)
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
    """The commits of model and data of the hub: a requeued job loads them, too."""
    values = run.resolved.values
    words = []
    for key in (PRETRAINED, DATA_PATH):
        if key in run.resolved.keys.decided and hub_names(values, key):
            words.append(f"--set={key}={plain(values[key].value)}")
    return words


def _prepare(
    args: CliArgs, out: Path | None, diagnostics: Sequence[Diagnostic], requested: Allocation
) -> RunPlan:
    """Prepare one run on a node of the cluster, in its largest world. Starts nothing."""
    # like this machine but for these
    node = machine.detect_machine()
    ranks = requested.ranks
    if requested.cpus:
        node = replace(node, cores=requested.cpus * ranks)
    if requested.gpus:
        node = replace(node, gpus=requested.gpus, device="cuda")
    source: Literal["torchrun", "srun"] = "torchrun" if requested.is_torchrun else "srun"
    largest = requested.nodes[-1] * ranks
    rank_0 = None
    if largest > 1 or requested.is_torchrun:
        rank_0 = RankEnvironment(0, largest, 0, ranks, 0, "", 0, source)
    errors = list(diagnostics)
    plan: RunPlan | None = None
    try:
        plan = prepare_run_at(args, out, node, rank_0)
    except SettingsError as invalid:
        errors += invalid.diagnostics

    if plan:
        errors += _unsplit(plan.resolved, requested)
        if rank_0 is None:
            errors += check_processes(plan.resolved.values, ranks, "srun")
    if errors or not plan:
        raise SettingsError(distinct(errors))
    return plan


def _unsplit(resolved: Resolved, requested: Allocation) -> list[Diagnostic]:
    """The error of a global batch that the most nodes can split, but fewer cannot."""
    batching = resolved.batching
    sizes = [nodes * requested.ranks for nodes in requested.nodes]
    common = math.lcm(*sizes)
    if batching.global_batch % common == 0:
        return []
    # A fix for one number of nodes would be wrong for another.
    allowed = "one number of nodes"
    fix = f"--nodes {requested.nodes[-1]}"
    if common <= _MOST_COMMON * sizes[-1]:
        allowed += f", or a multiple of {common}"
        total = max(1, round(batching.global_batch / common)) * common
        fix = batch_line(resolved.values, resolved.keys, batching.micro_batch, total)
    return [
        about(
            resolved.values,
            GLOBAL,
            f"a global batch of {batching.global_batch} cannot be split among each of "
            f"{sizes[0]} to {sizes[-1]} processes",
            allowed=allowed,
            fix=fix,
        )
    ]


def submit_all(submission: Submission, requested: Allocation) -> list[str]:
    """Make the folders and submit the jobs, each after the one before; their ids.

    Asks Slurm first whether they can ever start. Raises SettingsError; no file and no job is left
    behind then, nor after Ctrl-C.
    """
    ids: list[str] = []
    allowed = "a writable run folder that all nodes share"
    with disk.writing(submission.folder, "", allowed=allowed), ExitStack() as undo:
        try:
            # All are tested before anything is written.
            for job in submission.jobs:
                sbatch.test(job.text, requested.passthrough, environment.variables())
            if submission.stages:
                undo.callback(execute.make(submission.stages).discard)
            for job in submission.jobs:
                _make_folder(job.script.with_name("log"), undo)
                _write(job.script, job.text, undo)
                if job.lines is not None:
                    _write(job.script.with_name(run_folder.LINES), job.lines, undo)
            for job in submission.jobs:
                options = list(requested.passthrough)
                if ids:
                    options += dependency(ids[-1])
                ids.append(sbatch.submit(job.script, options, environment.variables()))
                undo.callback(sbatch.cancel, ids[-1])
            # The id of the next job is known only after all are queued.
            for job, following in zip(submission.jobs, ids[1:], strict=False):
                _write(job.script.with_name(NEXT), f"{following}\n", undo)
        except SlurmError as error:
            raise SettingsError.of(f"Slurm rejected the job: {error}", where="sbatch") from error
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
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
