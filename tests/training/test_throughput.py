"""Peaks are those of the data sheets; unknown ones are None."""

import pytest
import torch

from training.throughput import mfu, peak_flops


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("Tesla T4", "fp16", 65),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("AMD Instinct MI300X", "bf16", 1307.4),
    ],
)
def test_a_device_is_known_by_the_name_of_its_driver(name, precision, tera):
    assert peak_flops(name, precision) == pytest.approx(tera * 1e12)


@pytest.mark.gpu
def test_mfu_is_arithmetic_over_the_peak_of_all_devices():
    device = torch.device("cuda", 0)
    peak = peak_flops(torch.cuda.get_device_name(device), "bf16")
    if peak is None:
        pytest.skip("the peak of this device is not known")
    assert mfu(peak / 100, 50.0, device, "bf16", 2) == pytest.approx(0.25)
    assert mfu(None, 50.0, device, "bf16", 2) is None
