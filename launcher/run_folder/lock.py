"""Keeps two runs out of one folder: who writes into it holds a lock that ends with the process."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.base.diagnostics import Diagnostic, SettingsError
from slurm.environment import Generation, parse_generation
from training.storage import storage_errors

NAME = ".lock"
WAIT_S = 65.0
"""How long a dying run is waited for: above what rank.py gives ranks without a supervisor."""
_POLL_S = 0.1


@contextmanager
def hold(
    folder: Path,
    wait_s: float = WAIT_S,
    name: str = NAME,
    generation: Generation | None = None,
) -> Iterator[None]:
    """Hold the lock `name` of a folder; of a run's, for rank 0 before it reads or writes in there.

    Waits up to `wait_s` seconds for another run to let go, and says so once on stderr; but not for
    an earlier one than `generation` of the same job, whose node may be lost to us. The kernel
    releases the lock of a process however it ends. Where the system or the file system has no such
    locks, nothing is held. Raises SettingsError where the folder stays taken, StorageError where
    the file of the lock cannot be made. Touches the disk.
    """
    held: list[int] = []

    def let_go() -> None:
        while held:
            os.close(held.pop())

    if importlib.util.find_spec("fcntl") is not None:
        held.append(_take(folder / name, wait_s, generation))
        # A forked loader worker shares the lock: one that outlived us would keep it.
        os.register_at_fork(after_in_child=let_go)
    try:
        yield
    finally:
        let_go()


def _take(path: Path, wait_s: float, generation: Generation | None) -> int:
    """The open file that carries the lock."""
    end = time.monotonic() + wait_s
    told = False
    with storage_errors(path):
        file = _open(path)
        try:
            while not _is_locked(file) or _is_replaced(file, path):
                holder, theirs = _holder(file)
                new = None
                if _is_replaced(file, path):
                    new = _open(path)
                elif generation is not None and theirs is not None and generation.follows(theirs):
                    new = _replaced(path)
                if new is not None:
                    os.close(file)
                    file = new
                elif time.monotonic() > end:
                    raise SettingsError([_in_use(path.parent, holder)])
                else:
                    if not told:
                        say = f"{path.parent} is in use by {holder}; waiting for its end"
                        print(say, file=sys.stderr)
                        told = True
                    time.sleep(_POLL_S)
            _sign(file, generation)
        except BaseException:
            os.close(file)
            raise
    return file


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _replaced(path: Path) -> int:
    """A new file under the name of the lock: what a lost process holds is nobody's any more."""
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    file = _open(made)
    try:
        _is_locked(file)  # nobody else knows of it
        made.replace(path)
    except BaseException:
        os.close(file)
        raise
    return file


def _is_replaced(file: int, path: Path) -> bool:
    """Whether the name has come to another file since it was opened."""
    try:
        return not os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return True


def _is_locked(file: int) -> bool:
    """Whether we have the lock now, or can have none on this file system."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # such as a network file system without a lock service
        return True
    return True


def _sign(file: int, generation: Generation | None) -> None:
    of = "" if generation is None else f" {generation}"
    with suppress(OSError):  # a full disk: the name is for a message only
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}@{socket.gethostname()}{of}\n".encode(), 0)


def _holder(file: int) -> tuple[str, Generation | None]:
    """Who holds the lock, as it signed: for a person, and which life of a job it is."""
    signed = os.pread(file, 300, 0).decode(errors="replace").strip()
    process, _, of = signed.partition(" ")
    theirs = parse_generation(of)
    if theirs is not None:
        return f"{theirs.description}, {process}", theirs
    return signed or "another process", None


def _in_use(folder: Path, holder: str) -> Diagnostic:
    return Diagnostic(
        f"the run folder {folder} is in use by {holder}",
        value=str(folder),
        allowed="one run at a time in a folder",
        fix="wait for that run to end, or end it; or name another folder with  --out DIR",
    )
