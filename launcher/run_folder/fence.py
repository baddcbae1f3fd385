"""Fencing: only the latest generation of a job can write to its run folder."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.run_folder import generations
from slurm.environment import Generation, parse_generation
from training.checkpoint import retention
from training.storage import Storage, storage_errors

FENCE = ".fence-"
_CLOSED = ".closed-"
HIDDEN = (FENCE, _CLOSED)
_LINE_FILES = re.compile(r"(metrics|events|events-rank[0-9]+)\.jsonl|log\.txt")


class FencedOff(Exception):
    """A later generation has claimed the run: this one can no longer write to it."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = generations.latest(run)
        owner = "another run"
        if later is not None and later != generation:
            owner = later.description_for(generation)
        super().__init__(f"{generation.description} is fenced off: {owner} has claimed {run}")


@contextmanager
def fenced_storage(run: Path, generation: Generation) -> Iterator[Storage]:
    """Claim `run` for `generation`, close the fences of earlier ones; storage under a new fence.

    For rank 0. A node that Slurm considers DOWN may still compute, and a process that hung may
    continue. Each generation therefore creates its files in a fence, a hidden folder, and renames
    them out of it; the next generation renames that folder away and clears it. Files that grow by
    lines are replaced by copies, so that lines of an earlier process go to an unlinked file. If two
    generations start at once, each creates its fence before it checks: the later one always wins.
    Raises FencedOff and StorageError. Touches the disk.
    """
    if not generations.is_latest(run, generation):
        raise FencedOff(run, generation)
    generations.claim(run, generation)
    # The name has a token: a process that hung may still use an older fence.
    fence = run / f"{FENCE}{generation}-{secrets.token_hex(4)}"
    storage = Storage(run, fence)
    with storage_errors(run / FENCE):
        fence.mkdir()
        try:
            if not generations.is_latest(run, generation):
                raise FencedOff(run, generation)
            if _close_earlier_fences(storage, generation):
                _replace_line_files(storage)
        except BaseException:
            shutil.rmtree(fence, ignore_errors=True)
            raise
    yield storage
    # Not after an error: a save may still be running, and the next generation clears the fence.
    shutil.rmtree(fence, ignore_errors=True)


@contextmanager
def fencing_errors(storage: Storage, generation: Generation) -> Iterator[None]:
    """Raise FencedOff for an error of this rank if a closed fence is the reason."""
    try:
        yield
    except Exception as error:
        is_closed = storage.fence is not None and not storage.fence.is_dir()
        if is_closed and not generations.is_latest(storage.path, generation):
            raise FencedOff(storage.path, generation) from error
        raise


def _close_earlier_fences(storage: Storage, generation: Generation) -> bool:
    """Close the fences of earlier generations and recover checkpoints; whether there were any."""
    run = storage.path
    known = generations.claimed(run)
    # A process delayed here may itself be fenced off by now: later claims keep their fences.
    later = {claim for claim in known if claim.follows(generation)}
    later.update(known[known.index(generation) + 1 :])
    has_earlier = False
    for fence in [*run.glob(f"{FENCE}*"), *run.glob(f"{_CLOSED}*")]:
        owner = parse_generation(fence.name.removeprefix(FENCE).rpartition("-")[0])
        if fence == storage.fence or owner in later:
            continue
        has_earlier = True
        closed = fence
        if fence.name.startswith(FENCE):
            closed = fence.with_name(f"{_CLOSED}{fence.name.removeprefix(FENCE)}")
            with suppress(FileNotFoundError):  # its process has just ended normally
                fence.rename(closed)
        retention.recover(Storage(run, closed))
        for _ in range(100):  # its process may still create files in it
            shutil.rmtree(closed, ignore_errors=True)
            if not closed.exists():
                break
    return has_earlier


def _replace_line_files(storage: Storage) -> None:
    """Replace each file that an earlier generation may have open by a copy of its whole lines."""
    for path in sorted(storage.path.iterdir()):
        if _LINE_FILES.fullmatch(path.name):
            content = path.read_bytes()
            storage.atomic_write(path.name, content[: content.rfind(b"\n") + 1])
