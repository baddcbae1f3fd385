"""Freed memory of tensors goes back to the system where that is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOLES = """
import sys
import torch, psutil
from engines.device import return_freed
if sys.argv[1] == "returned":
    assert return_freed()
torch.zeros(6 * 2**20)  # 24 MiB, freed: from now on glibc itself keeps what is smaller
kept, small = [], []
for _ in range(40):
    kept.append(torch.zeros(2**20))  # 4 MiB
    small.append(torch.zeros(2**10))  # stays, and holds the heap open
before = psutil.Process().memory_info().rss
kept.clear()
print((before - psutil.Process().memory_info().rss) / 2**20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_between_blocks_that_stay_is_given_back():
    freed = {}
    for how in ("kept", "returned"):
        done = subprocess.run(
            [sys.executable, "-c", HOLES, how], capture_output=True, text=True, check=True
        )
        freed[how] = float(done.stdout)
    assert freed["returned"] > 150 > freed["kept"]
