"""Peaks are those of the data sheets; unknown ones are None."""

import pytest
import torch

from gearshift.training.throughput import gpus, mfu, peak_flops


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


@pytest.mark.parametrize(
    "name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A100-SXM4-80GB MIG 1g.10gb", "Abacus"]
)
def test_a_part_of_a_chip_and_another_chip_have_no_known_peak(name):
    assert peak_flops(name, "bf16") is None


def test_all_devices_together_have_the_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    found = [mfu(1e12, 100.0, torch.device("cuda", 0), "bf16", count) for count in (1, 4)]
    assert found == pytest.approx([1e14 / 989.5e12, 1e14 / (4 * 989.5e12)])


def test_links_are_counted_in_one_direction():
    """NVLink 4 has 18 links of 25 GB/s in each direction; so a data sheet says 900 GB/s."""
    assert gpus()["H100 80GB HBM3"].link_bytes_per_s == 18 * 25e9
