"""Pinned memory has the size that was asked for, and is unpinned while it is still mapped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gearshift.engines import device

CUDA = torch.device("cuda", 0)


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
        calls.append(("pin", size, is_mapped(address)))
        return fake.error

    def unregister(address):
        calls.append(("unpin", is_mapped(address)))
        return 0

    fake.cudaHostRegister, fake.cudaHostUnregister = register, unregister
    monkeypatch.setattr(torch.cuda, "cudart", lambda: fake)
    return fake


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_pages_are_unpinned_before_they_are_unmapped(runtime):
    memory = device.allocate_pinned(3 * 2**18, CUDA)
    del memory
    assert runtime.calls == [("pin", 3 * 2**18, True), ("unpin", True)]


def test_a_failed_pin_leaves_no_error_to_the_next_kernel(runtime, monkeypatch):
    runtime.error = 2  # cudaErrorMemoryAllocation
    launched = []

    def zeros(count, device):
        launched.append(device)
        raise RuntimeError("CUDA error: out of memory")  # the error that pinning left

    monkeypatch.setattr(torch, "zeros", zeros)
    memory = device.allocate_pinned(2**18, CUDA)
    del memory

    assert launched == [CUDA]
    assert [call[0] for call in runtime.calls] == ["pin"]


def test_a_tensor_is_pinned_at_its_size_where_torch_would_take_a_power_of_two(runtime):
    tensor, original = torch.randn(5, 41), torch.Tensor.pin_memory
    with device.pinned_exactly(CUDA):
        copy = tensor.pin_memory()
    assert torch.equal(copy, tensor) and copy.data_ptr() != tensor.data_ptr()
    assert runtime.calls == [("pin", 4 * 5 * 41, True)]
    assert torch.Tensor.pin_memory is original
    assert device.pinned(torch.empty(0, 3), CUDA).shape == (0, 3)
