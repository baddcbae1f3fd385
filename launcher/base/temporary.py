"""Temporary folders: a signal removes one, and a later start that of a process that was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

from gearshift.engines.environment import OWNER
from gearshift.launcher.base.signals import at_signal, deferred

MARK = "gearshift-"
"""In the name of each temporary folder."""
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, also where a signal ends the process. Touches the disk.

    `prefix` has the MARK. Removes folders that killed processes left in the same `parent`.
    """
    parent = parent or Path(gettempdir())
    remove_abandoned(parent)
    with ExitStack() as stack, at_signal(stack.close):
        with deferred():  # a signal in between would leave the folder behind
            folder = _new(prefix, parent, stack)
        try:
            yield folder
        finally:
            with deferred():
                stack.close()


def _new(prefix: str, parent: Path, stack: ExitStack) -> Path:
    """A folder whose owner file this process has locked; `stack` releases and removes it."""
    while True:
        folder = Path(mkdtemp(prefix=prefix, dir=parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path = folder / OWNER
        owner = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        stack.callback(os.close, owner)
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process removes it, which was not locked yet
            continue
        except OSError:  # a file system without locks: no process can remove it
            return folder
        if path.exists():
            return folder


def remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of this user in `parent` whose process is gone. Touches the disk.

    A folder without the file of its owner is not ours, whatever its name. No link is followed.
    """
    for folder in parent.glob(f"*{MARK}*"):
        with suppress(OSError):  # it is in use, of another user, no folder, or already removed
            if folder.is_symlink() or folder.lstat().st_uid != os.geteuid():
                continue
            owner = os.open(folder / OWNER, _FLAGS)
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(owner)
