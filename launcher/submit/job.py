"""The job of a submission: its run, checked in the world of the job, its script and folder."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gearshift.launcher.base import disk, environment
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, collecting, plain
from gearshift.launcher.config import machine
from gearshift.launcher.config.batching import GLOBAL, batch_line
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.errors import about
from gearshift.launcher.config.feature_checks import check_processes
from gearshift.launcher.config.provenance import STAGED_MODE, CliArgs, Resolved, hub_names
from gearshift.launcher.config.schema import DATA_PATH, PRETRAINED
from gearshift.launcher.run.prepare import prepare_run_at
from gearshift.launcher.run_folder import checkpoint_search, run_folder
from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.launcher.stages.pipeline import selected, with_weights
from gearshift.launcher.submit.allocation import Allocation
from gearshift.launcher.submit.options import run_arguments
from gearshift.slurm import sbatch, script
from gearshift.slurm.environment import SLURM_FOLDER, RankEnvironment
from gearshift.slurm.sbatch import SlurmError
from gearshift.training.storage import atomic_write

_MOST_COMMON = 8
"""Times the largest world, up to which a batch that every number of nodes divides is proposed."""
_MARK = re.compile("%[0-9]*[A-Za-z%]")


@dataclass(frozen=True)
class SlurmJob:
    """One run as a Slurm job."""

    plan: RunPlan
    folder: Path
    """The run folder; its subfolder slurm/ holds script and logs."""
    text: str
    """The job script."""

    @property
    def script(self) -> Path:
        """The file of the job script."""
        return self.folder / SLURM_FOLDER / run_folder.JOB_SCRIPT

    def log(self, job_id: str) -> Path:
        """The log; requeues append to it."""
        return self.folder / SLURM_FOLDER / "log" / f"{job_id}.out"


def decide(
    command_line: CommandLine, requested: Allocation, diagnostics: Sequence[Diagnostic]
) -> SlurmJob:
    """Check the run and choose its folder. Reads settings files and run folders.

    Raises SettingsError with `diagnostics` and all further errors.
    """
    args = command_line.args
    resumes_newest = args.resume == checkpoint_search.AUTO and command_line.out is None
    # slurm/staged.sbatch submits the job of a stage once the one before has trained.
    stages = [stage.name for stage in selected(args)]
    where = f"mode {STAGED_MODE}"
    if args.resume not in (None, checkpoint_search.AUTO):
        stages = [str(folder) for folder in RunReader(Path(args.resume)).stages().values()]
        where = f"{args.resume_option} {args.resume}"
    if stages:
        staged = Diagnostic(
            f"submit trains one stage, not {len(stages)}: {', '.join(stages)}",
            where=where,
            allowed="--stage NAME, or the folder of a stage to resume; "
            "slurm/staged.sbatch trains all",
        )
        raise SettingsError([*diagnostics, staged])
    args, invalid = with_weights(args)
    plan = _prepare(args, command_line.out, [*diagnostics, *invalid], requested)

    folder = plan.destination
    if plan.out is None and plan.resume is None:  # a default name gets a free folder
        folder = run_folder.unused_path(plan.name)
    folder = folder.absolute()
    logs = folder / SLURM_FOLDER / "log"
    if _MARK.search(str(logs)):  # Slurm 22.05 replaces some patterns of a folder even if escaped
        raise SettingsError.of(
            f"{logs} contains a pattern of sbatch, such as %j",
            value=str(logs),
            allowed="a run folder without % before a letter in its path",
        )

    # The newest run of now, not that of the time when the job starts.
    arguments = run_arguments(command_line.argv, ("--resume",) if resumes_newest else ())
    if resumes_newest and plan.resume:
        arguments.append(f"--resume={folder}")
    arguments += [*_pinned(plan), f"--out={folder}"]
    name = args.mode or "default"
    if name not in script.SHIPPED or name == STAGED_MODE:
        name = "default"
    header = {**requested.header, "output": str(logs / "%j.out"), "chdir": str(Path.cwd())}
    try:
        text = script.render(name, header, arguments)
    except ValueError as error:
        raise SettingsError.of(str(error), allowed="names without line breaks") from error
    return SlurmJob(plan, folder, text)


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
    with collecting(diagnostics) as errors:
        plan = prepare_run_at(args, out, node, rank_0)
        errors += _unsplit(plan.resolved, requested)
        if rank_0 is None:
            errors += check_processes(plan.resolved.values, ranks, "srun")
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
        fix = batch_line(resolved.keys, batching.micro_batch, total)
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


def submit(job: SlurmJob, passthrough: Sequence[str]) -> str:
    """Make the folder and submit the job, with further sbatch options; gives its id.

    Asks Slurm first whether it can ever start. Raises SettingsError; what was not there before is
    not left behind then, nor after Ctrl-C.
    """
    environ = environment.variables()
    allowed = "a writable run folder that all nodes share"
    with disk.writing(job.folder, "", allowed=allowed):
        try:
            sbatch.test(job.text, passthrough, environ)
            is_new = not job.script.exists()
            # Slurm makes no folders: without that of the log, the job fails without one.
            with disk.new_parents(job.log("")):
                try:
                    # A running job of this run may still read the earlier script.
                    atomic_write(job.script, job.text.encode())
                    return sbatch.submit(job.script, passthrough, environ)
                except BaseException:
                    if is_new:
                        job.script.unlink(missing_ok=True)
                    raise
        except SlurmError as error:
            raise SettingsError.of(f"Slurm rejected the job: {error}", where="sbatch") from error
