"""A process that is paused at a chosen file operation and continues later."""

import os
import signal
import sys
from contextlib import contextmanager
from hashlib import sha256

_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link"}
_CHANGES |= {"os.truncate", "shutil.rmtree"}


@contextmanager
def paused(operation, action):
    """Run `action` in a process that stops before its n-th change to a file or folder.

    It continues at the end of the block, and has ended after it. False: it ended before.
    """
    process = os.fork()
    if not process:
        _act(operation, action)
    status = os.waitpid(process, os.WUNTRACED)[1]
    try:
        yield os.WIFSTOPPED(status)
    finally:
        if os.WIFSTOPPED(status):
            os.kill(process, signal.SIGCONT)
            os.waitpid(process, 0)


def _act(operation, action):
    left = operation

    def stop(event, args):
        nonlocal left
        if event in _CHANGES or (event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGSTOP)

    try:
        sys.addaudithook(stop)
        action()
    finally:
        os._exit(0)


def content(folder):
    """The content of `folder`: digests of files, targets of links."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            what = f"-> {os.readlink(path)}"
        else:
            what = "" if path.is_dir() else sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = what
    return found
