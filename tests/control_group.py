"""A command prefix that limits the memory of a process and its children, on Linux."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest


@contextmanager
def limited(limit: int) -> Iterator[Sequence[str]]:
    """A command prefix that limits memory to `limit` bytes; skips the test where none works."""
    from benchmarks.out_of_memory import control_group  # imports torch

    scope = ("systemd-run", "--scope", "--quiet", "-p", f"MemoryMax={limit}")
    with ExitStack() as stack:
        try:
            group = stack.enter_context(control_group(limit))
        except SystemExit as error:
            if shutil.which("systemd-run") is None or subprocess.run([*scope, "true"]).returncode:
                pytest.skip(f"nor can a scope of systemd be made: {error}")
            yield scope
        else:
            yield ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
