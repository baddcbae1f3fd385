"""What holds for every test."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from launcher.run import affinity

if TYPE_CHECKING:
    from tests.engines.pool import Pool

# Data that tests have made is theirs: what they find is what this checkout makes, once a session.
_cache = TemporaryDirectory(prefix="gearshift-tests-")
os.environ["GEARSHIFT_CACHE"] = _cache.name

# Before anything imports torch: tests share the cores with the processes they start.
affinity.limit_spinning(os.environ)

# What runs in the background of a script ignores Ctrl-C, and so do the processes it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of a file, and those that share a cluster, in one worker of pytest-xdist."""
    for item in items:
        shares_cluster = "peaceful" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("cluster" if shares_cluster else str(item.path)))


@pytest.fixture(autouse=True)
def no_group_left_open() -> Iterator[None]:
    """A process group that a test leaves open would stand in the way of the next one's."""
    yield
    distributed = sys.modules.get("torch.distributed")
    assert distributed is None or not distributed.is_initialized()


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[int, Pool]]:
    """Worlds of one and two processes, which have imported everything after their first test."""
    from tests.engines.pool import Pool  # imports torch, which most tests do without

    pools = {size: Pool(size) for size in (1, 2)}
    yield pools
    for pool in pools.values():
        pool.close()
