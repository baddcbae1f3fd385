"""A command prefix that limits the memory of a process and its children, on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest

from training.resources import cgroup

_GROUP = f"gearshift-test-{os.getpid()}"


@contextmanager
def limited(limit: int) -> Iterator[Sequence[str]]:
    """A command prefix that limits memory to `limit` bytes; skips the test where none works."""
    two = cgroup.MOUNT / "cgroup.controllers"
    group = (cgroup.MOUNT if two.exists() else cgroup.MOUNT / "memory") / _GROUP
    file = "memory.max" if two.exists() else "memory.limit_in_bytes"
    enter = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    scope = ("systemd-run", "--scope", "--quiet", "-p", f"MemoryMax={limit}")
    try:
        group.mkdir()
        (group / file).write_text(str(limit))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        if shutil.which("systemd-run") is None or subprocess.run([*scope, "true"]).returncode:
            pytest.skip(f"no control group can be made here, nor a scope of systemd: {error}")
        yield scope
        return
    try:
        yield enter
    finally:
        group.rmdir()
