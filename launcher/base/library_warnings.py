"""Python warnings of libraries: once to a log, not to the console."""

from __future__ import annotations

import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from launcher.base.environment import PACKAGES, ROOT


@contextmanager
def logged(write: Callable[[str], None]) -> Iterator[None]:
    """Give each warning of a library to `write`, once.

    Warnings of other code, such as a custom task, are shown as they would be.
    """
    shown, seen = warnings.showwarning, set[str]()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None or not is_library(filename):
            shown(message, category, filename, lineno, file, line)
            return
        text = f"warning of a library: {filename}:{lineno}: {category.__name__}: {message}"
        if text not in seen:
            seen.add(text)
            write(text)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = shown


def is_library(filename: str) -> bool:
    """Whether a file belongs to an installed library, to Python or to this program."""
    path = Path(filename).absolute()
    ours = (ROOT / name for name in (*PACKAGES, "launcher"))
    installed = (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    return filename.startswith("<") or any(path.is_relative_to(p) for p in (*ours, *installed))
