"""The machine is detected without torch, with the limits of containers."""

import os
import sys
import sysconfig
from dataclasses import replace

import pytest

from gearshift.launcher.config import machine
from gearshift.launcher.config.machine import CONTEXT_BYTES, NCCL_BYTES
from gearshift.training.resources import nvml
from tests.fake_nvml import FakeGpu, build_nvml, needs_c, use_nvml
from tests.launcher.given import LAPTOP

GIB = 2**30


def test_the_limits_of_a_container_count_as_its_cores_and_memory(tmp_path):
    (tmp_path / "memory.current").write_text("0")
    for limit, counts in (("max", False), ("1073741824", True)):
        (tmp_path / "memory.max").write_text(limit)
        assert (machine.detect_machine(tmp_path).ram_bytes == 2**30) == counts
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    old = tmp_path / "old" / "cpu"
    old.mkdir(parents=True)
    assert machine.detect_machine(tmp_path).cores == mine
    (old / "cpu.cfs_period_us").write_text("100000")
    for quota, cores in (("150000", 2), ("50000", 1), ("max", mine)):
        (tmp_path / "cpu.max").write_text(f"{quota} 100000")
        assert machine.detect_machine(tmp_path).cores == min(cores, mine), quota
    for quota, cores in (("100000", 1), ("-1", mine)):
        (old / "cpu.cfs_quota_us").write_text(quota)
        assert machine.detect_machine(old.parent).cores == cores, quota


def test_hidden_gpus_and_cpus_of_others_do_not_count():
    named = (None, "0,2", "", "-1", "0,1,2,3,4")
    assert [machine.visible(4, name) for name in named] == [4, 2, 0, 0, 4]
    # Unbound: the process sees all of the node; bound to its own; more than there are; unknown.
    for cores, cpus, counted in ((64, 8, 32), (8, 8, 32), (2, 8, 8), (64, None, 64)):
        assert replace(LAPTOP, cores=cores).for_ranks(4, cpus).cores == counted


LARGE = FakeGpu("GPU-a", 24 * GIB, used=0, capability=(9, 0))
SMALL = FakeGpu("GPU-b", 6 * GIB, used=GIB, capability=(7, 5))
SLICE = FakeGpu("MIG-c", None, capability=(8, 0))


@pytest.fixture
def with_gpus(tmp_path, monkeypatch):
    """The machine with NVIDIA GPUs, of which CUDA_VISIBLE_DEVICES names some."""

    def detect(*gpus, visible=None, cuda=(12, 8), **variables):
        use_nvml(monkeypatch, build_nvml(tmp_path, *gpus, cuda=cuda))
        monkeypatch.setattr(machine, "nvidia_gpus", lambda: len(gpus))
        monkeypatch.setattr(machine, "_torch_build", lambda: {"cuda": "12.6"})
        # Set first: what the machine sets is then undone.
        for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
            monkeypatch.setenv(name, "PCI_BUS_ID")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return machine.detect_machine()

    return detect


@needs_c
def test_the_driver_tells_memory_and_capability_of_visible_gpus(with_gpus):
    for visible, found in (("0,1", (6 * GIB, (0, GIB), False)), ("GPU-a", (24 * GIB, (0,), True))):
        here = with_gpus(LARGE, SMALL, visible=visible)
        assert (here.gpu_bytes, here.gpu_others_bytes, here.gpu_bf16) == found
    here = with_gpus(LARGE, SLICE)
    assert (here.gpu_bytes, here.tensor_bytes(1), here.gpu_bf16) == (None, None, True)
    own = replace(SMALL, process=(os.getpid(), GIB // 4))
    assert with_gpus(own).gpu_others_bytes == (3 * GIB // 4,)


@needs_c
def test_gpus_that_a_control_group_hides_do_not_count(with_gpus):
    hidden = replace(LARGE, is_hidden=True)
    here = with_gpus(hidden, SMALL, hidden, SMALL, SMALL)
    assert (here.device, here.gpus, here.gpu_bytes) == ("cuda", 3, 6 * GIB)
    assert with_gpus(hidden, SMALL, LARGE, visible="1").gpu_bytes == 24 * GIB
    none = with_gpus(hidden, hidden)
    assert (none.device, none.gpus, none.gpu_bytes) == ("cpu", 0, None)
    assert "hidden" in none.unused


@needs_c
@pytest.mark.parametrize(
    ("gpus", "gpu_bytes"), [((SMALL, LARGE), 6 * GIB), ((SMALL, SMALL), 6 * GIB)]
)
def test_a_run_uses_all_gpus_of_several_kinds(with_gpus, gpus, gpu_bytes):
    here = with_gpus(*gpus)
    assert (here.gpus, here.gpu_bytes, here.unused) == (2, gpu_bytes, "")
    assert here.are_unlike == (LARGE in gpus)


@pytest.mark.parametrize(
    ("build", "nvidia", "amd", "driver", "found"),
    [
        ({"cuda": "12.6"}, 0, 1, None, ("cpu", 0, True)),
        ({"cuda": "12.6"}, 1, 0, None, ("cpu", 0, True)),
        ({"cuda": "13.0"}, 1, 0, (12, 8), ("cpu", 0, True)),
        ({"cuda": "12.6"}, 1, 1, (12, 2), ("cuda", 1, False)),
        ({"hip": "6.4"}, 0, 2, None, ("cuda", 2, False)),
        ({"hip": "6.4"}, 1, 0, (12, 8), ("cpu", 0, True)),
    ],
)
def test_gpus_that_torch_cannot_use_are_named_and_do_not_count(
    monkeypatch, build, nvidia, amd, driver, found
):
    monkeypatch.setattr(machine, "nvidia_gpus", lambda: nvidia)
    monkeypatch.setattr(machine, "amd_gpus", lambda: amd)
    monkeypatch.setattr(nvml, "driver_cuda", lambda: driver)
    monkeypatch.setattr(nvml, "gpu_states", lambda named: [None] * nvidia)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device, gpus, unused = machine._accelerator(build)
    assert (device, gpus, bool(unused)) == found
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert machine._accelerator(build)[1] == min(gpus, 1)


def test_tensors_get_what_others_the_context_and_nccl_leave_of_a_gpu():
    small = replace(LAPTOP, gpu_bytes=6 * GIB, gpu_others_bytes=(GIB, 2 * GIB))
    assert small.tensor_bytes(1) == 5 * GIB - CONTEXT_BYTES
    assert small.tensor_bytes(1, nodes=2) == 5 * GIB - CONTEXT_BYTES - NCCL_BYTES
    assert small.tensor_bytes(2) == 4 * GIB - CONTEXT_BYTES - NCCL_BYTES
    assert replace(small, gpu_others_bytes=(6 * GIB,)).tensor_bytes(1) == 0
    assert small.for_ranks(2, None).tensor_bytes(1) == 6 * GIB - CONTEXT_BYTES, "an earlier rank's"


@needs_c
@pytest.mark.parametrize(
    ("missing", "gpu", "lacks"),
    [
        ("triton/__init__.py", LARGE, "the package triton"),
        ("gcc", LARGE, "a C compiler"),
        ("Python.h", LARGE, "Python.h, from the package python3-dev or python3-devel"),
        (None, replace(LARGE, capability=(6, 1)), "a GPU of compute capability 7.0 or newer"),
        (None, SMALL, None),
        (None, SLICE, None),
    ],
)
def test_compiling_for_a_gpu_needs_triton_a_c_compiler_python_h_and_capability_7(
    tmp_path, monkeypatch, with_gpus, missing, gpu, lacks
):
    folder = tmp_path / "machine"
    for name in ("triton/__init__.py", "gcc", "Python.h"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch(mode=0o755)
    with_gpus(gpu)  # is compiled before its compiler is hidden
    if missing == "triton/__init__.py":
        monkeypatch.setitem(sys.modules, "triton", None)
    elif missing:
        (folder / missing).unlink()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(sysconfig, "get_path", lambda *names: str(folder))
    found = machine.detect_machine().compiler_lacks("cuda")
    assert found == (lacks and lacks.replace("Python.h", str(folder / "Python.h")))
