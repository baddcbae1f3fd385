"""The machine is detected without torch, with the limits of containers."""

import os
import shutil
import subprocess
import sys

import pytest

from launcher.config import machine


@pytest.fixture
def control_group(tmp_path):
    """Writes a file into a folder used as the control group, and gives the folder."""

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return tmp_path

    return write


def test_detection_imports_no_torch_and_finds_at_least_one_core():
    found = machine.detect_machine()
    assert found.cores >= 1
    assert found.ram_bytes is None or found.ram_bytes > 2**20
    assert (found.gpus > 0) == (found.device != "cpu")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_the_quota_of_a_container_counts_as_its_cores(control_group, tmp_path, files, cores):
    for name, text in files.items():
        control_group(name, text)
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert machine.detect_machine(tmp_path).cores == min(cores or mine, mine)


def test_the_memory_limit_of_a_container_counts_as_its_memory(control_group):
    assert machine.detect_machine(control_group("memory.max", "1073741824")).ram_bytes == 2**30
    assert machine.detect_machine(control_group("memory.max", "max")).ram_bytes != 2**30


@pytest.mark.parametrize(
    ("named", "gpus"), [(None, 4), ("0,2", 2), ("", 0), ("-1", 0), ("0", 1), ("0,1,2,3,4", 4)]
)
def test_hidden_gpus_do_not_count(named, gpus):
    assert machine.visible(4, named) == gpus


def test_a_machine_has_a_short_description():
    sentence = machine.Machine(2, 2**33, 0, "cpu", False, False, True).sentence
    assert sentence == "2 cores, 8.0 GiB, no GPU"
    assert machine.Machine(1, None, 2, "cuda", False, True, True).sentence == "1 core, 2 GPUs"


def test_flags_of_processors_with_bf16_are_known():
    assert machine.has_bf16("flags\t\t: fpu avx512f avx512_bf16 amx_tile")
    assert machine.has_bf16("processor : 0\nFeatures\t: fp asimd bf16 sve")
    assert not machine.has_bf16("flags\t\t: fpu avx2 avx512f")


@pytest.mark.parametrize(
    ("cores", "cpus", "counted"),
    [
        (64, 8, 32),  # unbound: the process sees all of the node
        (8, 8, 32),  # bound to its own
        (2, 8, 8),  # more than there are
        (64, None, 64),
    ],
)
def test_ranks_use_the_cpus_allocated_by_the_scheduler(cores, cpus, counted):
    here = machine.Machine(cores, None, 0, "cpu", cpu_bf16=False, gpu_bf16=False, compiler=False)
    assert here.for_ranks(4, cpus).cores == counted


NVML = """
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
static int numbers[3] = {0, 1, 2};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { if (i > 2) return 2; *h = numbers + i; return 0; }
int nvmlDeviceGetHandleByUUID(const char *id, void **h) { if (strcmp(id, "GPU-c")) return 6; *h = numbers + 2; return 0; }
int nvmlDeviceGetMemoryInfo(void *h, Memory *m) { m->total = (8ULL + *(int *)h) << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *a, int *b) { *a = 7 + *(int *)h; *b = 5; return 0; }
"""
"""Three GPUs of 8, 9 and 10 GiB, with compute capability 7, 8 and 9."""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_the_driver_tells_memory_and_capability_of_visible_gpus_without_torch(tmp_path):
    (tmp_path / "nvml.c").write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "nvml.c"], check=True)
    code = """
import sys
from launcher.config.machine import nvidia_facts
for named in (None, "1", "2,0", "GPU-c", "", "-1", "MIG-x", "7"):
    print([(gpu.memory_bytes >> 30, gpu.has_bf16) for gpu in nvidia_facts(named)])
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    none = "[]"
    assert done.stdout.splitlines() == [
        "[(8, False), (9, True), (10, True)]",
        "[(9, True)]",
        "[(10, True), (8, False)]",
        "[(10, True)]",
        *(none, none, none, none),
    ], done.stderr
