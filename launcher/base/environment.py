"""Environment variables of this process, and how Python finds and imports this program."""

from __future__ import annotations

import atexit
import gc
import os
import platform
import shutil
import signal
import site
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).absolute().parents[3]
"""The folder that holds the package `gearshift`: that of installed packages, or src/ of a clone."""
is_own_process = False
"""Whether this program started the process, and may change what is of the whole process."""


def variables() -> MutableMapping[str, str]:
    """The environment variables of this process; writing one changes it for child processes."""
    return os.environ


def compiler(variable: str, *names: str) -> str | None:
    """The command in `variable`, $CXX or $CC, or else the first of `names`; None: it cannot be run."""
    given = os.environ.get(variable)
    return next((name for name in ([given] if given else names) if shutil.which(name)), None)


def versions() -> dict[str, str]:
    """The versions of Python, of this program and of the libraries that train; imports none."""
    from importlib.metadata import PackageNotFoundError, version

    numbers = {"python": platform.python_version()}
    for name in ("gearshift", "torch", "deepspeed", "fairscale"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = "not installed"
    return numbers


def python_path() -> str:
    """PYTHONPATH with which a new interpreter finds this copy of `gearshift`."""
    given = os.environ.get("PYTHONPATH", "")
    root = str(ROOT)
    installed = [*site.getsitepackages(), site.getusersitepackages()]
    if root in installed:
        # In front of the standard library, old packages there would shadow its modules.
        return given
    return os.pathsep.join(filter(None, (root, given)))


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage during the imports within, if this process is our own.

    Most objects of a module live as long as the process: searching them for garbage takes a third of the time
    to import torch, and as long again at exit. Those that exist at the end are never searched.
    """
    if not is_own_process:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        version = getattr(sys.modules.get("triton"), "__version__", "0.0")
        if tuple(map(int, version.split(".")[:2])) >= (3, 9):
            atexit.register(gc.unfreeze)  # else it prints at exit what was never collected


def begin() -> None:
    """What importing `gearshift.launcher` does first: fix the order of GPUs.

    While `python -m launcher` or `python -m gearshift` imports its first modules, Ctrl-C ends it
    without a traceback. Exits on native Windows, which has no fork, no SIGUSR1, and no modules
    resource and fcntl.
    """
    if sys.platform == "win32":
        sys.stderr.write(
            "error: Gearshift does not run on native Windows; it runs in WSL 2, with the GPU\n"
            "  fix           wsl --install  and in its terminal the line of README.md  "
            "(docs/platforms.md)\n"
        )
        raise SystemExit(2)
    before = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    is_program = before[-2:] in (["-m", "launcher"], ["-m", "gearshift"])
    if is_program and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
