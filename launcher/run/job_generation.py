"""A generation of a Slurm job, which resumes the one before and publishes how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base import environment, exit_codes
from launcher.config.provenance import CliArgs
from launcher.run.run_end import Kind
from launcher.run_folder import generations, run_folder
from launcher.run_folder.checkpoint_search import AUTO, newest_step
from slurm.environment import Generation, InvalidEnvironment, read_generation, read_rank_environment


@dataclass(frozen=True)
class JobGeneration:
    """A generation of a Slurm job in its run folder, seen from one of its ranks."""

    generation: Generation
    run: Path
    rank: int

    def begin(self, args: CliArgs) -> CliArgs:
        """The arguments of this generation; all generations of a job have the same command line.

        Once a generation has saved a checkpoint, the next one resumes from it, without --reset.
        Before that the arguments apply unchanged, and files copied from a forked run are removed,
        to be copied again. Touches the disk.
        """
        if not generations.has_predecessor(self.run, self.generation):
            return args
        started, newest = generations.starts(self.run, self.generation), newest_step(self.run)
        has_saved = bool(started) and newest is not None and newest > started[0]["from_step"]
        if args.resume is None or has_saved:
            option = "the next generation"
            return replace(args, resume=AUTO, resume_option=option, reset=(), force=True)
        here, other = self.run.resolve(), Path(args.resume).resolve()
        is_own = args.resume == AUTO or args.resume.isdigit() or here in (other, *other.parents)
        if self.rank == 0 and not is_own:
            run_folder.clear(self.run)
        return args

    def claim(self) -> None:
        """Claim an unused run folder for this job, before rank 0 writes to it.

        Touches the disk. Raises StorageError.
        """
        if self.rank == 0 and run_folder.foreign_name(self.run) is None:
            generations.claim(self.run, self.generation)

    def end(self, kind: Kind, code: int, text: str) -> int:
        """Publish how this rank ended; the exit code of this process.

        Rank 0 publishes for all, except after a lost peer, a killed rank or where it is fenced off:
        without an outcome the job script assumes a crash. Another rank publishes its own failure. The
        first outcome counts. The code is 0 for every end that all ranks agreed on: srun and torchrun
        treat any other one as a failed rank, and the job script reads the outcome. Touches the disk.
        """
        of_all, of_one = ("peer lost", "killed", "fenced"), ("failed", "out of memory", "invalid input")
        if kind in of_one or (self.rank == 0 and kind not in of_all):
            generations.publish_outcome(self.run, self.generation, code, text)
        return exit_codes.DONE if kind == "ended" and code != exit_codes.FAILURE else code


def read_job_generation(out: Path | None) -> JobGeneration | None:
    """The generation of a Slurm job that this process belongs to; None: no job, or no --out.

    An invalid environment is reported when all arguments are checked.
    """
    variables = environment.variables()
    try:
        generation = read_generation(variables)
        rank = read_rank_environment(variables)
    except InvalidEnvironment:
        return None
    if generation is None or out is None:
        return None
    return JobGeneration(generation, out, rank.rank if rank else 0)
