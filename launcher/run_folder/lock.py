"""The lock of a folder: one process at a time writes to it."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.slurm.environment import Generation
from gearshift.training.storage import open_regular, storage_errors

NAME = ".lock"
WAIT_S = 65.0
"""Seconds to wait for a run that ends: more than rank.ORPHAN_S."""
_POLL_S = 0.1


@contextmanager
def hold(
    folder: Path, wait_s: float = WAIT_S, name: str = NAME, generation: Generation | None = None
) -> Iterator[None]:
    """Hold the lock `name` of a folder; in a run folder rank 0 holds it before it reads or writes.

    Waits up to `wait_s` seconds for another process, and prints that once on stderr; but does not
    wait for an earlier generation than `generation` of the same job, whose node may be lost. The
    kernel releases the lock however the process ends. Without support by the file system no lock is
    held. Raises SettingsError if the folder stays locked, and StorageError if the lock file cannot
    be created. Touches the disk.
    """
    held = [_acquire(folder / name, wait_s, generation)]

    def release() -> None:
        while held:
            os.close(held.pop())

    # A forked data-loader worker shares the lock and would keep it after this process.
    os.register_at_fork(after_in_child=release)
    try:
        yield
    finally:
        release()


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the lock of a folder; None: unknown. Reads the disk.

    A process that takes the lock at the same moment waits a tenth of a second.
    """
    try:
        file = open_regular(folder / NAME, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # for example a network file system without locks
        return None
    finally:
        os.close(file)  # releases it
    return False


def _acquire(path: Path, wait_s: float, generation: Generation | None) -> int:
    """The open lock file, locked."""
    end = time.monotonic() + wait_s
    is_reported = False
    with storage_errors(path):
        while True:
            file = open_regular(path, os.O_RDWR | os.O_CREAT)
            # Another process may have replaced it meanwhile.
            if _is_locked(file) and path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                _write_holder(file, generation)
                return file
            holder, is_lost = _holder(file, generation)
            os.close(file)
            if is_lost:  # the lock of a new file is free
                staged = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
                os.close(open_regular(staged, os.O_RDWR | os.O_CREAT))
                staged.replace(path)
                continue
            if time.monotonic() > end:
                raise SettingsError.of(
                    f"the run folder {path.parent} is in use by {holder}",
                    value=str(path.parent),
                    hint="wait for that run or stop it; or choose another folder with  --out DIR",
                )
            if not is_reported:
                print(f"{path.parent} is in use by {holder}; waiting", file=sys.stderr)
                is_reported = True
            time.sleep(_POLL_S)


def _is_locked(file: int) -> bool:
    """Lock an open file; False: another process holds the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # for example a network file system without locks
        return not isinstance(error, BlockingIOError)
    return True


def _write_holder(file: int, generation: Generation | None) -> None:
    holder = f"{os.getpid()}@{socket.gethostname()}"
    if generation:
        holder += f" {generation.job} {generation.number} {generation.restart}"
    with suppress(OSError):  # a full disk: the content is only for a message
        os.ftruncate(file, 0)
        os.pwrite(file, f"{holder}\n".encode(), 0)


def _holder(file: int, generation: Generation | None) -> tuple[str, bool]:
    """The process that holds the lock, as text; whether its generation is before `generation`."""
    content = os.pread(file, 300, 0).decode(errors="replace").strip()
    process, *words = content.split(" ")
    with suppress(ValueError):  # it is of no job
        job, number, restart = words
        earlier = Generation(job, int(number), int(restart))
        is_lost = generation is not None and generation.follows(earlier)
        return f"{earlier.description}, {process}", is_lost
    return content or "another process", False
