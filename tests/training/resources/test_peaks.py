"""Peaks of memory: what a run took for itself, on its largest rank."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

from tests.training.tiny import one_rank
from training.resources.memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20
OWN = """
import torch
from training.resources.memory import Peaks
peaks = Peaks()
taken = torch.ones(64 * 2**20 // 4)
del taken
print(peaks.own(torch.device("cpu"))["host_growth"])
"""


def test_only_what_is_taken_after_the_beginning_counts_and_its_highest_stays():
    # From a process that itself holds much: none of that is the other's.
    mine = torch.ones(300 * MIB // 4)
    done = subprocess.run(
        [sys.executable, "-c", OWN], capture_output=True, text=True, check=True, env=os.environ
    )
    assert mine[0] == 1
    assert 60 * MIB < int(done.stdout) < 90 * MIB


def test_a_cpu_has_no_device_peak_also_where_ranks_agree():
    agreed = PeakMemory().agreed(one_rank())
    assert agreed["device"] is None
    assert agreed["host"] >= agreed["host_growth"] >= 0


class TwoRanks:
    """A world in which the other rank took more memory on the host, and none on the device."""

    device = CPU

    def maximum(self, value):
        return torch.maximum(value, torch.tensor([-1, 2**50, 5]))


def test_the_largest_rank_counts():
    agreed = PeakMemory().agreed(TwoRanks())
    assert agreed["host"] == 2**50
    assert agreed["device"] is None
