"""Fencing: a run folder belongs to the latest generation of a job; an earlier one ends."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.run_folder import generations
from slurm.environment import Generation
from training.storage import Storage, storage_errors

_LINE_FILES = re.compile(r"(metrics|events|events-rank[0-9]+)\.jsonl|log\.txt")


class FencedOff(OSError):
    """A later generation has claimed the run: this one can no longer write to it."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = generations.latest(run)
        owner = "another run"
        if later is not None and later != generation:
            owner = later.description_for(generation)
        text = f"{generation.description} is fenced off: {owner} has claimed {run}"
        super().__init__(errno.EPERM, text)

    def __str__(self) -> str:
        return str(self.strerror)


def claim(run: Path, generation: Generation) -> None:
    """Claim `run` for `generation`. For rank 0. Touches the disk.

    A node that Slurm considers DOWN may still compute, and a process that hung may continue. Files
    that grow by lines are therefore replaced by copies: an earlier process has the unlinked ones
    open, which its next line finds. Of two generations that start at once the later one wins, since
    each claims before it checks. Raises FencedOff and StorageError.
    """
    if generations.is_latest(run, generation):
        generations.claim(run, generation)
    if not generations.is_latest(run, generation):
        raise FencedOff(run, generation)
    for path in sorted(run.iterdir()):
        if _LINE_FILES.fullmatch(path.name):
            with storage_errors(path):
                content = path.read_bytes()
                Storage(run).atomic_write(path.name, content[: content.rfind(b"\n") + 1])


@contextmanager
def fencing(run: Path, generation: Generation) -> Iterator[Storage]:
    """The storage of `run`, which checks before each file that `generation` still owns the run.

    An error in the block is FencedOff if a later generation has claimed the run.
    """

    def check() -> None:
        if not generations.is_latest(run, generation):
            raise FencedOff(run, generation)

    try:
        yield Storage(run, check)
    except Exception as error:
        if isinstance(error, FencedOff) or generations.is_latest(run, generation):
            raise
        raise FencedOff(run, generation) from error
