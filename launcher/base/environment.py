"""This process: its environment variables, how it imports, and the warnings of its libraries."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import platform
import shutil
import signal
import site
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parents[3]
"""The folder that holds the package `gearshift`: that of installed packages, or src/ of a clone."""
is_own_process = False
"""Whether this program started the process, and may change what is of the whole process."""


def variables() -> MutableMapping[str, str]:
    """The environment variables of this process; writing one changes it for child processes."""
    return os.environ


THREADS = "OMP_NUM_THREADS"


def limit_spinning() -> None:
    """Let waiting threads of OpenMP and OpenBLAS sleep soon, unless the user set how they wait.

    GNU OpenMP spins for milliseconds by default. With one other busy program on two cores a
    training step of language:small took 3.6 s instead of 0.24 s; on an idle machine it is no
    faster. OpenBLAS, that of numpy and of scipy, spins on all cores when it is imported, for 2 to
    this power of clock cycles. Call it before numpy is imported.
    """
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def compiler(variable: str, *names: str) -> str | None:
    """The command in `variable`, $CXX or $CC, or the first of `names`; None: none can be run."""
    command = os.environ.get(variable)
    return next(filter(shutil.which, [command] if command else names), None)


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
    folders = [str(ROOT)]
    # In front of the standard library, old packages there would shadow its modules.
    if folders[0] in (*site.getsitepackages(), site.getusersitepackages()):
        folders.clear()
    return os.pathsep.join(filter(None, [*folders, os.environ.get("PYTHONPATH")]))


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage during the imports within, if this process is our own.

    Most objects of a module live as long as the process: searching them for garbage takes a third
    of the time to import torch, and as long again at exit. Those that exist at the end are never
    searched.
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


@contextmanager
def logged(write: Callable[[str], None]) -> Iterator[None]:
    """Give each warning of a library to `write`, once; `write` must not warn.

    Those of other code, such as a custom task, are shown as they would be. So are log records; of
    libraries, which print them with handlers of their own, those below a warning are dropped.
    """
    shown = warnings.showwarning
    handled = logging.Logger.callHandlers

    once = cache(lambda text: write(f"warning of a library: {text}"))

    def show(
        message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any
    ) -> None:
        if any(rest) or not (_is_installed(filename) or _is_of_program(filename)):
            shown(message, category, filename, line, *rest)
        else:
            once(f"{filename}:{line}: {category.__name__}: {message}")

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_installed(record.pathname) or _is_of_program(record.pathname):
            handled(logger, record)
        elif record.levelno >= logging.WARNING:
            once(f"{record.name}: {record.getMessage()}")

    warnings.showwarning = show  # type: ignore[assignment]
    logging.Logger.callHandlers = handle  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        warnings.showwarning = shown
        logging.Logger.callHandlers = handled  # type: ignore[method-assign]


def _is_installed(filename: str) -> bool:
    """Whether a file belongs to an installed library or to Python."""
    path = Path(filename).absolute()
    folders = map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))
    return filename.startswith("<") or any(map(path.is_relative_to, folders))


def _is_of_program(filename: str) -> bool:
    return Path(filename).absolute().is_relative_to(ROOT / "gearshift")


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
