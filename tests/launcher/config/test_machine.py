"""The machine is detected without torch, with the limits of containers."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest

from launcher.config import machine
from tests.launcher.given import LAPTOP, python


def test_detection_finds_at_least_one_core():
    found = machine.detect_machine()
    assert found.cores >= 1
    assert found.ram_bytes is None or found.ram_bytes > 2**20
    assert (found.gpus > 0) == (found.device != "cpu")


def test_the_limits_of_a_container_count_as_its_cores_and_memory(tmp_path):
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


def test_hidden_gpus_do_not_count():
    named = (None, "0,2", "", "-1", "0,1,2,3,4")
    assert [machine.visible(4, name) for name in named] == [4, 2, 0, 0, 4]


def test_flags_of_processors_and_the_description():
    assert machine.has_bf16("flags\t\t: fpu avx512f avx512_bf16 amx_tile")
    assert machine.has_bf16("processor : 0\nFeatures\t: fp asimd bf16 sve")
    assert not machine.has_bf16("flags\t\t: fpu avx2 avx512f")
    sentence = machine.Machine(2, 2**33, 0, "cpu", False, False, True).sentence
    assert sentence == "2 cores, 8.0 GiB, no GPU"
    assert machine.Machine(1, None, 2, "cuda", False, True, True).sentence == "1 core, 2 GPUs"


def test_ranks_use_the_cpus_allocated_by_the_scheduler():
    def counted(cores, cpus):
        return replace(LAPTOP, cores=cores).for_ranks(4, cpus).cores

    assert counted(64, 8) == 32  # unbound: the process sees all of the node
    assert counted(8, 8) == 32  # bound to its own
    assert counted(2, 8) == 8  # more than there are
    assert counted(64, None) == 64


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
    done = python("-c", code, env={"LD_LIBRARY_PATH": str(tmp_path)})
    first, second, third = "(8, False)", "(9, True)", "(10, True)"
    found = (f"{first}, {second}, {third}", second, f"{third}, {first}", third, *[""] * 4)
    assert done.stdout.splitlines() == [f"[{gpus}]" for gpus in found], done.stderr
