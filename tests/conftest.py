"""Fixtures and settings for all tests."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from gearshift.launcher.base import environment

if TYPE_CHECKING:
    from tests.engines.pool import Pool

# Nothing that is collected or imported for it is garbage, and searching it takes a third of the time.
gc.disable()

# Caches of tests belong to this checkout and are made once a session, whose processes share them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _cache = TemporaryDirectory(prefix="gearshift-tests-")
    os.environ["GEARSHIFT_CACHE"] = _cache.name

# Else each of the many processes would compile our modules anew, and rewrite the asserts of all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Before anything imports torch: tests share the cores with the processes they start. With a test
# process on each core, two threads take longer than one.
environment.limit_spinning()
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Background jobs of a script ignore Ctrl-C, and so do the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


SHARED = "tests/slurm/lifecycle/"
"""Tests that share one cluster."""
WORLDS = (
    "tests/engines/",
    "tests/training/",
    "tests/edges/test_odd_parameters.py",
    "tests/launcher/plan/test_placement.py",
    "tests/runs/test_crossing.py",
)
"""Tests in worlds, for whose first one a process imports torch and DeepSpeed again.

They take less than half of the time: one of two processes runs them all.
"""
FIRST = (
    SHARED,
    *WORLDS,
    "tests/runs/test_ends.py",
    "tests/models/doc_translation/test_learning.py",
    "tests/models/eeg_text/test_learning.py",
    "tests/runs/test_limits.py",
    "tests/launcher/stages/test_execute.py",
    "tests/launcher/compare/test_compare.py",
    "tests/launcher/plan/test_coverage.py",
    "tests/runs/test_model_of_the_hub.py",
    "tests/docs/test_commands.py",
)
"""What takes longest, so that at the end no process works alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for start in reversed(FIRST):
        items.sort(key=lambda item: not item.nodeid.startswith(start))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None:
        import torch  # most tests do without

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU that torch can use (CUDA)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give the tests of a file, and those that share a cluster or worlds, to one process."""
    from xdist.scheduler import LoadScopeScheduling

    worlds = WORLDS if len(config.getoption("tx")) == 2 else ()

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            for shared in (SHARED, worlds):
                if nodeid.startswith(shared):
                    return str(shared)
            return nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small disk with options; again, to change them."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs the right to mount a disk")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True)


@pytest.fixture
def hangups() -> Iterator[None]:
    """The end of a terminal reaches processes, also if nohup started the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def no_group_left_open() -> Iterator[None]:
    """A process group left open by a test would break that of the next one."""
    yield
    distributed = sys.modules.get("torch.distributed")
    assert distributed is None or not distributed.is_initialized()


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[int, Pool]]:
    """Worlds of one and two processes, which have imported everything after their first test."""
    yield from _pools("cpu")


@pytest.fixture(scope="session")
def gpu_worlds() -> Iterator[dict[int, Pool]]:
    """Worlds of one and two GPUs."""
    yield from _pools("cuda")


def _pools(device: str) -> Iterator[dict[int, Pool]]:
    from tests.engines.pool import Pool  # imports torch, which most tests do without

    pools = {size: Pool(size, device) for size in (1, 2)}
    yield pools
    for pool in pools.values():
        pool.close()
