"""Tests with one body for all devices: on a CPU, and on a GPU where there is one."""

import pytest

each_device = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
)


def pool(request, device, size):
    """The world of `size` ranks on `device`, or a skip without so many GPUs."""
    import torch

    if device == "cuda" and torch.cuda.device_count() < size:
        pytest.skip(f"needs {size} GPUs")
    return request.getfixturevalue("worlds" if device == "cpu" else "gpu_worlds")[size]
