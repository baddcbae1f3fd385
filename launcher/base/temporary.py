"""A temporary folder that a signal removes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp

from gearshift.launcher.base.signals import at_signal, deferred


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, also where a signal ends the process. Touches the disk."""
    with ExitStack() as stack, at_signal(stack.close):
        with deferred():  # a signal in between would leave the folder behind
            folder = mkdtemp(prefix=prefix, dir=parent)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            yield Path(folder)
        finally:
            with deferred():
                stack.close()
