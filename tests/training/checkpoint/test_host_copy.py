"""Memory for copies is pinned for a device, and unpinned while it is still mapped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training.checkpoint.host_copy import HostCopy
from training.checkpoint.tensor_file import Interval

CUDA = torch.device("cuda", 0)
INTERVALS = [Interval("weight", "w", 0, torch.ones(2**18), torch.float32)]


def is_mapped(address):
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.partition(" ")[0].partition("-")
        if int(start, 16) <= address < int(end, 16):
            return True
    return False


@pytest.fixture
def runtime(monkeypatch):
    """A CUDA runtime whose calls are recorded; `error` is what pinning returns."""
    calls = []
    fake = SimpleNamespace(error=0, calls=calls)

    def register(address, size, flags):
        calls.append(("pin", is_mapped(address)))
        return fake.error

    def unregister(address):
        calls.append(("unpin", is_mapped(address)))
        return 0

    fake.cudaHostRegister, fake.cudaHostUnregister = register, unregister
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
    return fake


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_pages_are_unpinned_before_they_are_unmapped(runtime):
    copy = HostCopy(CUDA)
    assert copy.reserve(INTERVALS)
    copy.release()
    assert runtime.calls == [("pin", True), ("unpin", True)]


def test_a_failed_pin_leaves_no_error_to_the_next_kernel(runtime, monkeypatch):
    runtime.error = 2  # cudaErrorMemoryAllocation
    launched = []

    def zeros(count, device):
        launched.append(device)
        raise RuntimeError("CUDA error: out of memory")  # the error that pinning left

    monkeypatch.setattr(torch, "zeros", zeros)
    copy = HostCopy(CUDA)
    assert copy.reserve(INTERVALS)
    copy.release()

    assert launched == [CUDA]
    assert [name for name, _ in runtime.calls] == ["pin"]
