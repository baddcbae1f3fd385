"""A process that is killed at a chosen operation on files and folders."""

import os
import signal
import sys

_CHANGES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "shutil.rmtree"}


def killed_at(operation, action):
    """Run `action` in a process that is killed just before its n-th change to a file or folder.

    False: it ended before that.
    """
    process = os.fork()
    if process:
        status = os.waitpid(process, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
        return os.WIFSIGNALED(status)
    left = operation

    def kill(event, args):
        nonlocal left
        if event in _CHANGES or (event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(kill)
        action()
        os._exit(0)
    finally:
        os._exit(1)
