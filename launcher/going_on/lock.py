"""Keeps two runs out of one folder: who writes into it holds a lock that ends with the process."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.messages import Fault, SettingsError
from training.records.line_file import RunFolderError

NAME = ".lock"
WAIT_S = 65.0
"""How long a dying run is waited for: above what rank.py gives ranks without a supervisor."""
_POLL_S = 0.1


@contextmanager
def hold(folder: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock of a run folder; for rank 0, before it reads or writes anything in there.

    Waits up to `wait_s` seconds for another run to let go, and says so once on stderr. The kernel
    releases the lock of a process however it ends. Where the system or the file system has no such
    locks, nothing is held. Raises SettingsError where the folder stays taken, RunFolderError where
    the file of the lock cannot be made. Touches the disk.
    """
    held: list[int] = []

    def let_go() -> None:
        while held:
            os.close(held.pop())

    if importlib.util.find_spec("fcntl") is not None:
        held.append(_take(folder, wait_s))
        # A forked loader worker shares the lock: one that outlived us would keep it.
        os.register_at_fork(after_in_child=let_go)
    try:
        yield
    finally:
        let_go()


def _take(folder: Path, wait_s: float) -> int:
    """The open file that carries the lock."""
    try:
        file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as fault:
        raise RunFolderError(folder / NAME, fault) from fault
    try:
        end = time.monotonic() + wait_s
        told = False
        while not _is_locked(file):
            if time.monotonic() > end:
                raise SettingsError([_in_use(folder, _holder(file))])
            if not told:
                print(
                    f"{folder} is in use by {_holder(file)}; waiting for its end", file=sys.stderr
                )
                told = True
            time.sleep(_POLL_S)
        _sign(file)
    except BaseException:
        os.close(file)
        raise
    return file


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


def _sign(file: int) -> None:
    with suppress(OSError):  # a full disk: the name is for a message only
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}@{socket.gethostname()}\n".encode(), 0)


def _holder(file: int) -> str:
    """`pid@host` of who holds the lock, as it signed."""
    return os.pread(file, 300, 0).decode(errors="replace").strip() or "another process"


def _in_use(folder: Path, holder: str) -> Fault:
    return Fault(
        f"the run folder {folder} is in use by {holder}",
        value=str(folder),
        legal="one run at a time in a folder",
        mend="wait for that run to end, or end it; or name another folder with  --out DIR",
    )
