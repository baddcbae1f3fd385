"""Memory of this process: peaks, and releasing unused memory."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from gearshift.training.resources.memory import CacheClearing, PeakMemory
from tests.training.facts import step, train_plan

CPU = torch.device("cpu")
MIB = 2**20


ALONE = """
import gc, torch
from gearshift.training.resources.memory import PeakMemory, host_bytes, release_unused

peaks = PeakMemory()
taken = torch.ones(64 * 2**20 // 4)
del taken
print(peaks.local(torch.device("cpu"))["host_growth"])

class Ring:
    def __init__(self):
        self.block, self.itself = bytearray(50_000), self

# Each cycle is garbage, but not collected yet; a live block pins the end of the heap.
gc.disable()
last = [Ring() for _ in range(4000)][-1]
full = host_bytes()
release_unused(torch.device("cpu"))
print(full - host_bytes())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries give back by themselves")
def test_a_process_counts_what_it_took_itself_and_releases_garbage_to_the_system():
    mine = torch.ones(300 * MIB // 4)  # its parent has a large memory itself
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert mine[0] == 1
    growth, released = map(int, done.stdout.split())
    assert 60 * MIB < growth < 90 * MIB
    # Of 4000 blocks of 50 kB, most at least: memory behind the last one in use stays.
    assert released > 150 * MIB


class TwoRanks:
    """A world in which the other rank took more memory on the host, and none on the device."""

    device = CPU

    def maximum(self, value):
        return torch.maximum(value, torch.tensor([2**50, 5]))


def test_the_maximum_over_ranks_counts():
    largest = PeakMemory().maximum(TwoRanks())
    assert largest["host"] == 2**50
    assert largest["device"] is None


@pytest.mark.parametrize(("accumulation", "every"), [(1, 3), (2, 3), (3, 2), (4, 1)])
def test_a_cache_is_emptied_once_so_many_micro_batches_have_passed(
    monkeypatch, accumulation, every
):
    emptied, taken = [], 0
    runtime = SimpleNamespace(empty_cache=lambda: emptied.append(taken))
    monkeypatch.setattr(torch, "get_device_module", lambda device: runtime)
    clearing = CacheClearing(every, torch.device("cuda", 0))
    clearing.start(train_plan(accumulation=accumulation))
    expected = []
    for number in range(1, 13):
        taken, before = number * accumulation, taken
        clearing.step(step(number))
        if taken // every > before // every:
            expected.append(taken)
    assert emptied == expected
