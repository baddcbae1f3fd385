"""What a user without the privileges of root may read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

_NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Drop the privileges of root within the block; they make it ignore permissions."""
    was_root = os.geteuid() == 0
    if was_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if was_root:
            os.seteuid(0)


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """A temporary folder that every user may read; the folders of pytest are not."""
    with TemporaryDirectory(prefix="gearshift-readable-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    """Nobody may read `path` within the block, which runs without the privileges of root."""
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with unprivileged():
            yield
    finally:
        path.chmod(mode)
