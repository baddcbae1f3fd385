"""Command line, settings, run folder, processes and reports."""

import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # `python -m launcher` handles Ctrl-C later; in an import Python would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pkgutil import extend_path
from typing import NoReturn

from gearshift.launcher.base import environment

if __name__ == "launcher":
    # For `python -m launcher`. A folder of this name without `__init__` is found as well.
    __path__ = extend_path(__path__, __name__)

environment.begin()


def __getattr__(name: str) -> NoReturn:
    """Name the package that has what an old program looks for here."""
    if name in ("Run", "RunError", "SettingsError", "open_run", "train"):
        raise ImportError(f"launcher.{name} is gearshift.{name}: import gearshift")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
