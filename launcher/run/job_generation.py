"""This process's part in a generation of a job: what it is told to do, and what it publishes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base import exit_codes
from launcher.config.provenance import CliArgs
from launcher.resume.find import AUTO, newest_step
from launcher.run.failures import Kind
from launcher.run_folder import claim, fence, lock, outcome, run_folder
from slurm.environment import (
    SLURM_FOLDER,
    Generation,
    InvalidEnvironment,
    RankEnvironment,
    read_generation,
    read_rank_environment,
)

FIRST_WORD_S = 10.0
"""How long a rank whose words are wrong lets rank 0 speak, whose words are the same."""
_POLL_S = 0.05
_SPEAKS_FOR_OTHERS: tuple[Kind, ...] = ("words", "fault", "out of memory")


@dataclass(frozen=True)
class Life:
    """A generation of a job in its run folder, seen from one of its ranks."""

    generation: Generation
    run: Path
    rank: int

    def begin(self, words: CliArgs) -> CliArgs:
        """The words of this generation, which are typed alike for all of the job.

        Once one of them has saved a checkpoint, the next goes on from it, and --resume and --reset
        have done their work. Until then they say what they said to the first one; what that had
        copied from another run is taken away, to be copied again. Touches the disk.
        """
        if not claim.belongs(self.run, self.generation):
            return words
        if words.resume is None or self._has_saved():
            return replace(words, resume=AUTO, resume_option="the next life of its job", reset=())
        if self.rank == 0 and not self._is_own(words.resume):
            kept = {one.name for one in self.run.iterdir() if one.name.startswith(fence.HIDDEN)}
            run_folder.clear(self.run, {SLURM_FOLDER, lock.NAME, *kept})
        return words

    def claim(self) -> None:
        """Make a run folder of which nobody has begun that of this job, before it is written.

        Rank 0's. Raises StorageError. Touches the disk.
        """
        if self.rank == 0 and run_folder.is_free(self.run):
            claim.claim(self.run, self.generation)

    def _has_saved(self) -> bool:
        """Whether the job has a checkpoint of its own in the run folder."""
        begun = claim.began(self.run, self.generation)
        newest = newest_step(self.run)
        return bool(begun) and newest is not None and newest > begun[0]["from_step"]

    def _is_own(self, resumed: str) -> bool:
        """Whether what is typed behind --resume is the run in this job's own folder."""
        if resumed == AUTO or resumed.isdigit():
            return True
        own, other = self.run.resolve(), Path(resumed).resolve()
        return own == other or own in other.parents

    def end(self, kind: Kind, code: int, text: str) -> None:
        """Publish how this rank ended, where that decides how the generation did.

        Rank 0 speaks for all, but not of a peer that it lost or a rank that was killed: no outcome
        is a crash; nor where a later generation has taken over. Another rank speaks where it failed
        by itself and nobody has spoken.
        """
        if kind in ("peer lost", "killed", "fenced"):
            return
        if self.rank != 0:
            if kind not in _SPEAKS_FOR_OTHERS:
                return
            if kind == "words" and self.is_told(FIRST_WORD_S):
                return
        outcome.publish(self.run, self.generation, code, text)

    def is_told(self, wait_s: float) -> bool:
        """Whether some rank has published an outcome; waits for one, `wait_s` at most."""
        path = outcome.path(self.run, self.generation)
        end = time.monotonic() + wait_s
        while not path.exists():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True


def read(out: Path | None) -> Life | None:
    """What the environment makes of a run in `out`; None: it is of no job.

    What is wrong in the environment is told where all words are checked.
    """
    try:
        generation = read_generation(os.environ)
        place: RankEnvironment | None = read_rank_environment(os.environ)
    except InvalidEnvironment:
        return None
    if generation is None or out is None:
        return None
    return Life(generation, out, place.rank if place else 0)


def exit_code(life: Life | None, kind: Kind, code: int) -> int:
    """What the process ends with.

    The outcome tells the job script what comes next; to srun and torchrun any other code than 0 is
    a rank that failed, whose peers are to be ended or started anew.
    """
    agreed = life is not None and kind == "ended" and code != exit_codes.FAILURE
    return exit_codes.DONE if agreed else code
