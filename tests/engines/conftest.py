"""Worlds of one and two processes, kept for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.pool import Pool


@pytest.fixture(scope="session")
def worlds() -> Iterator[dict[int, Pool]]:
    pools = {size: Pool(size) for size in (1, 2)}
    yield pools
    for pool in pools.values():
        pool.close()
