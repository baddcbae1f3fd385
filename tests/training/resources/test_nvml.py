"""What NVML tells of a GPU, on a stand-in for the library."""

import os
import subprocess
import sys

import pytest

from gearshift.training.resources.nvml import GpuState, gpu_states
from tests.fake_nvml import FakeGpu, build_nvml, needs_c, use_nvml

pytestmark = needs_c
OWN = os.getpid()
UNKNOWN = 2**64 - 1
ALL = {"busy": 93, "capability": (9, 0)}


@pytest.mark.parametrize(
    ("gpu", "state"),
    [
        (FakeGpu("GPU-a", process=(OWN, 5), **ALL), GpuState(8, 20, 5, 93.0, (9, 0))),
        (FakeGpu("GPU-a", process=(OWN + 1, 5), **ALL), GpuState(8, 20, None, 93.0, (9, 0))),
        (FakeGpu("GPU-a", process=(OWN, UNKNOWN)), GpuState(8, 20)),  # of WSL2
        (FakeGpu("MIG-a", capability=(8, 0)), GpuState(8, 20, capability=(8, 0))),
        (FakeGpu("GPU-a", total=None, **ALL), None),  # it shares the main memory
        (FakeGpu("GPU-a", is_split=True, **ALL), None),
    ],
)
def test_a_gpu_is_read_as_far_as_the_driver_tells(tmp_path, monkeypatch, gpu, state):
    use_nvml(monkeypatch, build_nvml(tmp_path, gpu))
    assert gpu_states(None) == gpu_states(gpu.name) == [state]


def test_without_the_library_a_list_of_processes_or_the_gpu_it_is_unknown(tmp_path, monkeypatch):
    use_nvml(monkeypatch, None)
    assert gpu_states(None) == gpu_states("GPU-a") == []
    gpu = FakeGpu("GPU-a", process=(OWN, 5))
    use_nvml(monkeypatch, build_nvml(tmp_path, gpu, lists="v1"))
    assert gpu_states("GPU-a, 0,GPU-b") == [GpuState(8, 20), GpuState(8, 20), None]


def test_visible_gpus_are_read_without_torch(tmp_path):
    gpus = [FakeGpu("GPU-a", 8), FakeGpu("GPU-b", 9), FakeGpu("GPU-c", 10)]
    library = build_nvml(tmp_path, *gpus)
    code = """
import ctypes, sys, pynvml
from gearshift.training.resources import nvml
pynvml.nvmlLib = ctypes.CDLL(sys.argv[1])
for named in (None, "1", "2,0", "GPU-c", "", "-1", "MIG-x", "7", "GPU-b,GPU-a"):
    print([state and state.total for state in nvml.gpu_states(named)])
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code, library], capture_output=True, text=True)
    totals = ([8, 9, 10], [9], [10, 8], [10], [], [], [None], [None], [9, 8])
    assert done.stdout.splitlines() == [str(total) for total in totals], done.stderr
