"""What holds for every test."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from launcher import cores

# Before anything imports torch: tests share the cores with the processes they start.
cores.share_politely(os.environ)


@pytest.fixture(autouse=True)
def no_group_left_open() -> Iterator[None]:
    """A process group that a test leaves open would stand in the way of the next one's."""
    yield
    distributed = sys.modules.get("torch.distributed")
    assert distributed is None or not distributed.is_initialized()
