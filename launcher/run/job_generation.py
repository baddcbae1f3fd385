"""A generation of a Slurm job, which resumes the one before and publishes how it ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base import environment, exit_codes
from launcher.config.provenance import CliArgs
from launcher.run.failures import Kind
from launcher.run_folder import fence, generations, lock, run_folder
from launcher.run_folder.checkpoint_search import AUTO, newest_step
from slurm.environment import (
    SLURM_FOLDER,
    Generation,
    InvalidEnvironment,
    read_generation,
    read_rank_environment,
)

RANK_0_WAIT_S = 10.0
"""How long a rank with invalid input waits for rank 0, which has the same, to report it."""
_PUBLISHED_BY_ANY = ("invalid input", "failed", "out of memory")
_POLL_S = 0.05


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
        if args.resume is None or self._has_saved():
            return replace(
                args, resume=AUTO, resume_option="the next generation", reset=(), force=True
            )
        if self.rank == 0 and not self._is_own(args.resume):
            names = [entry.name for entry in self.run.iterdir()]
            fences = {name for name in names if name.startswith(fence.HIDDEN)}
            run_folder.clear_except(self.run, {SLURM_FOLDER, lock.NAME, *fences})
        return args

    def claim(self) -> None:
        """Claim an unused run folder for this job, before rank 0 writes to it.

        Touches the disk. Raises StorageError.
        """
        if self.rank == 0 and run_folder.foreign_name(self.run) is None:
            generations.claim(self.run, self.generation)

    def end(self, kind: Kind, code: int, text: str) -> int:
        """Publish how this rank ended; the exit code of this process.

        That is 0 for every end that all ranks agreed on: srun and torchrun treat any other code as
        a failed rank, and the job script reads the outcome file. Touches the disk.
        """
        self._publish(kind, code, text)
        is_agreed = kind == "ended" and code != exit_codes.FAILURE
        return exit_codes.DONE if is_agreed else code

    def _publish(self, kind: Kind, code: int, text: str) -> None:
        """Publish how this rank ended, if that is the outcome of the generation.

        Rank 0 publishes for all, except after a lost peer, a killed rank or a closed fence: without
        an outcome the job script assumes a crash. Another rank publishes its own failure, if no
        rank has published yet.
        """
        if kind in ("peer lost", "killed", "fenced"):
            return
        if self.rank != 0:
            if kind not in _PUBLISHED_BY_ANY:
                return
            if kind == "invalid input" and self._is_published(RANK_0_WAIT_S):
                return
        generations.publish_outcome(self.run, self.generation, code, text)

    def _has_saved(self) -> bool:
        started = generations.starts(self.run, self.generation)
        newest = newest_step(self.run)
        return bool(started) and newest is not None and newest > started[0]["from_step"]

    def _is_own(self, resumed: str) -> bool:
        """Whether --resume names the run in the folder of this job."""
        if resumed == AUTO or resumed.isdigit():
            return True
        here, other = self.run.resolve(), Path(resumed).resolve()
        return here == other or here in other.parents

    def _is_published(self, wait_s: float) -> bool:
        """Whether a rank has published an outcome; waits up to `wait_s` seconds."""
        path = generations.outcome_path(self.run, self.generation)
        end = time.monotonic() + wait_s
        while not path.exists():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True


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
