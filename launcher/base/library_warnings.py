"""Warnings and log records of libraries: once to a log, not to the console."""

from __future__ import annotations

import logging
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gearshift.launcher.base.environment import ROOT


@contextmanager
def logged(write: Callable[[str], None]) -> Iterator[None]:
    """Give each warning of a library to `write`, once; `write` must not warn.

    Those of other code, such as a custom task, are shown as they would be. So are log records; of
    libraries, which print them with handlers of their own, those below a warning are dropped.
    """
    shown = warnings.showwarning
    handled = logging.Logger.callHandlers
    seen: set[str] = set()

    def once(text: str) -> None:
        if text not in seen:
            seen.add(text)
            write(f"warning of a library: {text}")

    def show(
        message: Warning | str, category: type[Warning], filename: str, line: int, *rest: Any
    ) -> None:
        if any(rest) or not (_is_installed(filename) or _is_ours(filename)):
            shown(message, category, filename, line, *rest)
        else:
            once(f"{filename}:{line}: {category.__name__}: {message}")

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not _is_installed(record.pathname) or _is_ours(record.pathname):
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
    folders = map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))
    return filename.startswith("<") or any(
        Path(filename).absolute().is_relative_to(f) for f in folders
    )


def _is_ours(filename: str) -> bool:
    return Path(filename).absolute().is_relative_to(ROOT / "gearshift")
