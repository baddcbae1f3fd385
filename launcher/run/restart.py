"""Starts the ranks again where a fault ended them, or where memory ran out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.base import exit_codes
from launcher.config import batching
from launcher.config.provenance import Batching, CliArgs, Resolved
from launcher.resume import find
from launcher.resume.find import AUTO, ResumeRequest, newest_step
from launcher.run import supervisor
from launcher.run.failures import Kind, Report
from launcher.run.job_spec import Job
from launcher.run_folder import fence, generations, lock, run_folder
from slurm.environment import (
    SLURM_FOLDER,
    Generation,
    InvalidEnvironment,
    RankEnvironment,
    read_generation,
    read_rank_environment,
)
from training.logging.events import append_event
from training.resources.oom import MAX_HALVINGS
from training.storage import Storage

_AGAIN = ("failed", "killed", "peer lost")
"""How ranks end that may do better the next time. Words stay wrong; a signal wants an end; and
what the ranks agreed on, such as a loss that is not finite, would come again."""


def is_supervised(resolved: Resolved) -> bool:
    """Whether ranks run in processes of their own, watched by this one."""
    settings = resolved.settings
    return resolved.nproc > 1 or settings.engine.max_restarts > 0 or settings.continual.enabled


def supervise(
    job: Job,
    threads: int,
    tell: Callable[[Report], None],
    module: str = "launcher.run.rank",
    forwarded: set[int] | None = None,
) -> Report:
    """Run `job` to its end, with as many restarts after faults as its settings allow.

    Where memory ran out, the ranks begin again with half the micro-batch and the same global batch,
    three times at most: within a collective, where its peers are, a rank cannot take a step again.
    The report is that of the last try. Each restart goes on from the newest checkpoint, and is
    told on stderr and in the log. `forwarded` collects those that were handed on. Touches the disk.
    """
    forwarded = set() if forwarded is None else forwarded
    most = job.resolved.settings.engine.max_restarts
    first = First(job)
    tried, diagnostics, halved = job, 0, 0
    while True:
        ending = supervisor.supervise(tried, threads, tell, module, forwarded)
        if forwarded or not first.folder.is_dir():
            return ending
        smaller = batching.halved(tried.resolved.batching)
        if ending.kind == "out of memory" and halved < MAX_HALVINGS and smaller is not None:
            halved += 1
            tried, step = first.again(smaller)
            line = f"restart with micro-batches of {smaller.micro_batch}"
            _tell_event(first.folder, ending, smaller, step)
        elif ending.kind in _AGAIN and diagnostics < most:
            diagnostics += 1
            tried, step = first.again(tried.resolved.batching)
            line = f"restart {diagnostics} of {most}"
        else:
            return ending
        where = "from the beginning" if step is None else f"from step {step}"
        _say(job, f"{line} {where}", ending)


def _tell_event(folder: Path, ending: Report, smaller: Batching, step: int | None) -> None:
    facts = {
        "rank": ending.rank,
        "text": ending.text,
        "micro_batch": smaller.micro_batch,
        "accumulation": smaller.accumulation,
        "from_step": step,
    }
    append_event(Storage(folder), "out_of_memory", step or 0, facts)


class First:
    """What the first try of a job began with."""

    def __init__(self, job: Job) -> None:
        assert job.folder is not None, "a supervised job has its folder"
        self._job = job
        self.folder = job.folder
        self._newest = find.newest_step(job.folder)
        told = job.resume
        self._step = None
        if told is not None:
            self._step = find.newest_step(told.source) if told.step is None else told.step

    def again(self, numbers: Batching) -> tuple[Job, int | None]:
        """The job of a restart, and the step it goes on from; None: from the beginning.

        What began anew at first does so again, unless a checkpoint was saved since: that has it.
        """
        job = replace(self._job, resolved=replace(self._job.resolved, batching=numbers))
        saved = find.newest_step(self.folder)
        is_new = saved is not None and saved != self._newest and saved > (self._step or 0)
        if is_new or self._job.resume is None:
            return replace(job, resume=ResumeRequest(self.folder)), saved
        return job, self._step


def _say(job: Job, line: str, ending: Report) -> None:
    assert job.folder is not None
    run_folder.append_log(job.folder, f"{ending.text}\n{ending.trace}\n{line}")
    if job.console:
        print(line, file=sys.stderr, flush=True)


FIRST_WORD_S = 10.0
"""How long a rank whose words are wrong lets rank 0 speak, whose words are the same."""
_POLL_S = 0.05
_SPEAKS_FOR_OTHERS: tuple[Kind, ...] = ("invalid input", "failed", "out of memory")


@dataclass(frozen=True)
class JobGeneration:
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
        if not generations.has_predecessor(self.run, self.generation):
            return words
        if words.resume is None or self._has_saved():
            return replace(words, resume=AUTO, resume_option="the next life of its job", reset=())
        if self.rank == 0 and not self._is_own(words.resume):
            kept = {one.name for one in self.run.iterdir() if one.name.startswith(fence.HIDDEN)}
            run_folder.clear_except(self.run, {SLURM_FOLDER, lock.NAME, *kept})
        return words

    def claim(self) -> None:
        """Make a run folder of which nobody has begun that of this job, before it is written.

        Rank 0's. Raises StorageError. Touches the disk.
        """
        if self.rank == 0 and run_folder.is_unused(self.run):
            generations.claim(self.run, self.generation)

    def _has_saved(self) -> bool:
        """Whether the job has a checkpoint of its own in the run folder."""
        begun = generations.starts(self.run, self.generation)
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
            if kind == "invalid input" and self.is_told(FIRST_WORD_S):
                return
        generations.publish_outcome(self.run, self.generation, code, text)

    def is_told(self, wait_s: float) -> bool:
        """Whether some rank has published an outcome; waits for one, `wait_s` at most."""
        path = generations.outcome_path(self.run, self.generation)
        end = time.monotonic() + wait_s
        while not path.exists():
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
        return True


def read(out: Path | None) -> JobGeneration | None:
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
    return JobGeneration(generation, out, place.rank if place else 0)


def exit_code(life: JobGeneration | None, kind: Kind, code: int) -> int:
    """What the process ends with.

    The outcome tells the job script what comes next; to srun and torchrun any other code than 0 is
    a rank that failed, whose peers are to be ended or started anew.
    """
    agreed = life is not None and kind == "ended" and code != exit_codes.FAILURE
    return exit_codes.DONE if agreed else code
