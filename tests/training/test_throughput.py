"""Peaks are those of the data sheets; unknown ones are None."""

import pytest
import torch

from training.throughput import gpus, mfu, peak_flops


@pytest.mark.parametrize(
    ("name", "precision", "tera"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312),
        ("NVIDIA A100-PCIE-40GB", "tf32", 156),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("NVIDIA L40S", "bf16", 362.05),
        ("Tesla T4", "fp16", 65),
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("NVIDIA GeForce RTX 3090", "bf16", 71),
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


def test_data_sheets_have_memory_and_bandwidth_unless_variants_differ_and_a_cpu_no_peak():
    found = gpus()
    for name, gpu in found.items():
        assert (gpu.memory_bytes is None) == (gpu.memory_bytes_per_s is None), name
        assert {"fp32", "fp16"} <= gpu.peaks.keys(), name
    open_names = {name for name, gpu in found.items() if gpu.memory_bytes is None}
    assert open_names == {"A100", "V100 PCIE", "V100 SXM2", "V100 SXM3"}
    assert found["H200"].memory_bytes == 141 * 2**30
    assert found["H200"].link_bytes_per_s == 450e9
    assert peak_flops("NVIDIA A100-SXM-64GB", "bf16") == 312e12
    assert mfu(1e9, 100.0, torch.device("cpu"), "fp32", 1) is None
