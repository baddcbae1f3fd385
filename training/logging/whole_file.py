"""A file that is replaced at once: a reader sees the old one or the new one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from training.logging.door import beside


def put(path: Path, content: bytes, door: Path | None = None) -> None:
    """Put `content` at `path`, through the `door` where there is one.

    Touches disk. Raises OSError, and has left nothing behind then.
    """
    made = beside(path, door)
    try:
        with made.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError:
        with suppress(OSError):
            made.unlink(missing_ok=True)
        raise
