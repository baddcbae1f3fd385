"""Fences a run folder off from earlier processes of the run that may still be alive somewhere."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.run_folder import generations, run_folder
from slurm.environment import Generation, parse_generation
from training.checkpoint import retention
from training.storage import Storage, storage_errors

DOOR = ".door-"
_CLOSED = ".closed-"
HIDDEN = (DOOR, _CLOSED)
_LINES = re.compile(r"(metrics|events|events-rank[0-9]+)\.jsonl")


@contextmanager
def taken_over(run: Path, generation: Generation) -> Iterator[Path]:
    """Claim `run` and shut earlier generations out; the folder through which to write. Rank 0's.

    A node that Slurm calls DOWN may still compute, and a process that hung may wake up. Each
    generation therefore makes its files in a door, a hidden folder of its own, and renames them
    from there; its successor moves the door away, and clears it. Files that grow line by line are
    replaced by copies, so that an open one is nobody's. Of two that begin at once each makes its
    door before it looks, so that the later one always wins. Raises FencedOff, StorageError.
    Touches the disk.
    """
    if not generations.is_latest(run, generation):
        raise FencedOff(run, generation)
    generations.claim(run, generation)
    with storage_errors(run / DOOR):
        door = _made(run, generation)
        try:
            if not generations.is_latest(run, generation):
                raise FencedOff(run, generation)
            if _close_earlier(run, generation, door):
                _replace_lines(run, door)
        except BaseException:
            shutil.rmtree(door, ignore_errors=True)
            raise
    yield door
    # Not after a fault: an older save may still be on its way, and the successor clears it away.
    shutil.rmtree(door, ignore_errors=True)


@contextmanager
def told(run: Path, generation: Generation, door: Path) -> Iterator[None]:
    """A fault of this rank is told as FencedOff, where that is what lies behind it."""
    try:
        yield
    except Exception as fault:
        if not door.is_dir() and not generations.is_latest(run, generation):
            raise FencedOff(run, generation) from fault
        raise


def _made(run: Path, generation: Generation) -> Path:
    """A door that there never was before: a process that hangs may believe in an older one."""
    path = run / f"{DOOR}{generation}-{secrets.token_hex(4)}"
    path.mkdir()
    return path


def _close_earlier(run: Path, generation: Generation, own: Path) -> bool:
    """Move the doors of earlier ones away, give back what was on its way out, and clear them."""
    known = generations.claimed(run)
    # Who was held up here may itself be fenced off by now: what was claimed later stays open.
    later = {one for one in known if one.follows(generation)}
    later.update(known[known.index(generation) + 1 :])
    found = False
    for door in [*run.glob(f"{DOOR}*"), *run.glob(f"{_CLOSED}*")]:
        if door == own or _generation(door) in later:
            continue
        found = True
        closed = door
        if door.name.startswith(DOOR):
            closed = door.with_name(f"{_CLOSED}{door.name.removeprefix(DOOR)}")
            with suppress(FileNotFoundError):  # its process has just ended in good order
                door.rename(closed)
        retention.recover(run, closed)
        _clear(closed)
    return found


def _generation(door: Path) -> Generation | None:
    """Whose door it is; None: it was closed before."""
    return parse_generation(door.name.removeprefix(DOOR).rpartition("-")[0])


def _clear(closed: Path) -> None:
    """Remove a closed door, also while a process still makes files in it that it had begun."""
    for _ in range(100):
        shutil.rmtree(closed, ignore_errors=True)
        if not closed.exists():
            return


def _replace_lines(run: Path, door: Path) -> None:
    """Put a copy in the place of each file that an older generation may have open."""
    for path in sorted(run.iterdir()):
        if not _LINES.fullmatch(path.name) and path.name != run_folder.LOG:
            continue
        content = path.read_bytes()
        # A line that was not finished never will be.
        Storage(run, door).atomic_write(path.name, content[: content.rfind(b"\n") + 1])


class FencedOff(Exception):
    """A later generation has taken the run over: this one may write nothing any more."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = generations.latest(run)
        by = (
            "another run"
            if later is None or later == generation
            else later.description_for(generation)
        )
        super().__init__(
            f"{generation.description} is fenced off by {by}, which has taken over {run}"
        )
