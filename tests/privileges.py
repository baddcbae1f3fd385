"""What a user without the privileges of root may read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_NOBODY = 65534


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every user may read; the folders of pytest are not."""
    with TemporaryDirectory(prefix="gearshift-readable-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Nobody may read `path` within the block, which runs without the privileges of root: they ignore permissions."""
    mode, was_root = path.stat().st_mode, os.geteuid() == 0
    path.chmod(0)
    if was_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)
        path.chmod(mode)
