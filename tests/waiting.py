"""Waiting for a condition, however long a busy machine takes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

LIMIT_S = 400.0
"""Less than a test may take by pyproject.toml, and much more than anything takes that works."""


def until(happened: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until `happened`, while `process` runs, if one is named."""
    end = time.monotonic() + LIMIT_S
    while not happened():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
