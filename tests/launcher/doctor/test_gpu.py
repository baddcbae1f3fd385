"""GPUs, driver and NCCL: the situations that machines are found in."""

from dataclasses import replace

from launcher.doctor.gpu import Gpus, check_driver, check_gpu, check_nccl, read_driver

H200 = Gpus(nvidia=2, driver="570.86.15", build="CUDA 12.8", names=["NVIDIA H200"] * 2, nccl="2.27")


def test_a_machine_with_or_without_gpus_is_ok():
    for gpus in (H200, Gpus(build="CUDA 12.8")):
        checks = (check_gpu, check_driver, check_nccl)
        assert [check(gpus).status for check in checks] == ["ok"] * 3
    assert check_gpu(H200).found == "2 × NVIDIA H200, GPU memory unknown; torch for CUDA 12.8"
    known = replace(H200, memory_bytes=140 * 2**30)
    assert check_gpu(known).found == "2 × NVIDIA H200, 140.0 GiB; torch for CUDA 12.8"


def test_gpus_that_torch_cannot_use_are_reported():
    for gpus, status, text in (
        (Gpus(nvidia=1, driver="570.86"), "warning", "built for CPUs only"),
        (Gpus(amd=1), "warning", "1 × AMD, but torch was built for CPUs only"),
        (Gpus(nvidia=2, visible="", build="CUDA 12.8"), "warning", "hides all 2"),
        (Gpus(nvidia=2, visible="-1", build="CUDA 12.8"), "warning", "hides all 2"),
        (Gpus(nvidia=1, build="CUDA 12.8"), "failure", "cannot use 1 × NVIDIA"),
        (Gpus(amd=1, build="ROCm 6.4"), "failure", "cannot use 1 × AMD"),
        (Gpus(build="MPS"), "warning", "finds no GPU"),
    ):
        found = check_gpu(gpus)
        assert found.status == status and text in found.found and found.fix, gpus
    found = check_nccl(Gpus(nvidia=2, build="CUDA 12.8", names=["A", "A"]))
    assert found.status == "warning" and "2 GPUs cannot train together" in found.found


def test_the_driver_is_new_enough_for_the_cuda_of_torch():
    for driver, build, status in (
        (None, "CUDA 12.8", "failure"),
        ("470.57.02", "CUDA 12.8", "failure"),
        ("525.60.13", "CUDA 12.8", "ok"),
        ("570.86.15", "CUDA 13.0", "failure"),
        ("580.65", "CUDA 13.0", "ok"),
        ("470.57.02", None, "ok"),
    ):
        found = check_driver(Gpus(nvidia=1, driver=driver, build=build))
        assert found.status == status, (driver, build)


def test_the_version_of_the_driver_is_read(tmp_path):
    for line in (
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build",
    ):
        (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.3.0\n")
        assert read_driver(tmp_path / "version") == "535.104.05"
    assert read_driver(tmp_path / "none") is None
