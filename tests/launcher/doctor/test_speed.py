"""Speeds: measured here, and a GPU below its data sheet."""

from __future__ import annotations

import torch

from launcher.doctor.speed import Speed, check_speed, measure


def test_products_and_copies_of_the_cpu_are_measured():
    found = list(measure(torch.device("cpu"), 0.0))
    assert [one.what for one in found] == ["matmul fp32", "matmul bf16", "copy"]
    assert all(one.per_s > 0 and one.expected is None for one in found)
    assert check_speed("cpu", found).status == "ok"


def test_a_gpu_below_half_its_data_sheet_is_a_warning():
    good, slow = Speed("copy", 4e12, 4.8e12), Speed("matmul bf16", 2e14, 9.9e14)
    assert check_speed("cuda", [good]).found == "copy 4.00 TB/s (83% of 4.80 TB/s)"
    found = check_speed("cuda", [good, slow])
    assert found.status == "warning" and found.found.endswith("; slow: matmul bf16")
