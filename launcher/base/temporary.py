"""A temporary folder that a signal removes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from gearshift.launcher.base.signals import at_signal, deferred


@contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed at the end, also where a signal ends the process. Touches the disk."""
    folders: list[Path] = []

    def remove() -> None:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    with at_signal(remove):
        try:
            with deferred():  # a signal in between would leave the folder behind
                folders.append(Path(mkdtemp(prefix=prefix, dir=parent)))
            yield folders[0]
        finally:
            with deferred():
                remove()
