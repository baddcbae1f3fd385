"""A generation of a Slurm job, which resumes the one before and publishes how it ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gearshift.launcher.base import environment, exit_codes
from gearshift.launcher.base.signals import Publish
from gearshift.slurm.environment import SLURM_FOLDER, Generation, InvalidEnvironment
from gearshift.slurm.variables import read_generation, read_rank_environment
from gearshift.training.storage import atomic_write, publish_new

if TYPE_CHECKING:
    from gearshift.launcher.config.provenance import CliArgs

OUTCOMES = {
    exit_codes.DONE: "done",
    exit_codes.INVALID_INPUT: "invalid",
    exit_codes.RUN_AGAIN: "again",
    exit_codes.INTERRUPTED: "again",
}
"""First word of an outcome file, which slurm/job.sh reads, by exit code; of others `failed`."""
_OUT = "--out"


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
        from gearshift.launcher.run_folder import generations, run_folder
        from gearshift.launcher.run_folder.checkpoint_search import AUTO, newest_step

        if not generations.has_predecessor(self.run, self.generation):
            return args
        started = generations.starts(self.run, self.generation)
        newest = newest_step(self.run)
        has_saved = bool(started) and newest is not None and newest > started[0]["from_step"]
        if args.resume is None or has_saved:
            return replace(
                args, resume=AUTO, resume_option="the next generation", reset=(), force=True
            )
        here = self.run.resolve()
        other = Path(args.resume).resolve()
        is_own = args.resume == AUTO or args.resume.isdigit() or here in (other, *other.parents)
        if self.rank == 0 and not is_own:
            run_folder.clear(self.run)
        return args

    def claim(self) -> None:
        """Claim an unused run folder for this job, before rank 0 writes to it.

        Touches the disk. Raises StorageError.
        """
        from gearshift.launcher.run_folder import generations, run_folder

        if self.rank == 0 and run_folder.foreign_name(self.run) is None:
            generations.claim(self.run, self.generation)

    def end(self, kind: str, code: int, text: str) -> int:
        """Publish how this rank ended, by RunEnd.kind; the exit code of this process.

        Rank 0 publishes for all, except after a lost peer, a killed rank or where it is fenced off:
        without an outcome the job script assumes a crash. Another rank publishes its own failure.
        The first outcome counts. The code is 0 for every end that all ranks agreed on: srun and
        torchrun treat any other one as a failed rank, and the job script reads the outcome. Touches
        the disk.
        """
        of_all = ("peer lost", "killed", "fenced")
        of_one = ("failed", "out of memory", "invalid input")
        if kind in of_one or (self.rank == 0 and kind not in of_all):
            publish_outcome(self.run, self.generation, code, text)
        if kind == "ended" and code != exit_codes.FAILURE:
            return exit_codes.DONE
        return code


def read_job_generation(out: Path | None) -> JobGeneration | None:
    """The generation of a Slurm job that this process belongs to; None: no job, or no --out.

    An invalid environment is reported when all arguments are checked.
    """
    variables = environment.variables()
    with suppress(InvalidEnvironment):
        generation = read_generation(variables)
        rank = read_rank_environment(variables)
        if generation and out:
            return JobGeneration(generation, out, rank.rank if rank else 0)
    return None


def start_publisher(argv: Sequence[str]) -> Publish:
    """Publishes, while a run starts, that the job script runs it again; see `publish_outcome`."""
    words = [word for argument in argv for word in argument.split("=", 1)]
    place = words.index(_OUT) + 1 if _OUT in words else len(words)  # before arguments are parsed
    out = "".join(words[place : place + 1])
    job = read_job_generation(Path(out) if out else None)
    if not job:
        return lambda code, text: True
    return partial(publish_outcome, job.run, job.generation)


def outcome_path(run: Path, generation: Generation) -> Path:
    """The outcome file of a generation; restarts by torchrun in place share it."""
    return run / SLURM_FOLDER / f"outcome.{generation.job}.{generation.number}"


def publish_outcome(run: Path, generation: Generation, code: int, text: str = "") -> bool:
    """Write the outcome file for exit code `code`, atomically; whether it is the one that counts.

    The first outcome counts, since the first failed rank takes others along; but code 0 always
    counts. `text` is for users. If the disk is full or the folder is missing there is no outcome,
    which the job script treats as a crash. Touches the disk.
    """
    final = outcome_path(run, generation)
    staged = final.with_name(f".{final.name}.{os.getpid()}")
    lines = [f"{OUTCOMES.get(code, 'failed')} {code}", *text.splitlines(), ""]
    try:
        atomic_write(staged, "\n".join(lines).encode(errors="backslashreplace"))
        if code == 0:
            staged.replace(final)
        else:
            publish_new(staged, final)
        return True
    except OSError:  # FileExistsError: another outcome counts
        return False
    finally:
        with suppress(OSError):
            staged.unlink()
