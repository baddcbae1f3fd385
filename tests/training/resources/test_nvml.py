"""What NVML tells of a GPU, on a stand-in for the library."""

import os
from types import SimpleNamespace

import pytest
import torch

from training.resources import nvml
from training.resources.nvml import GpuState, gpu_state

CUDA = torch.device("cuda")


class Library:
    """Stands in for pynvml: a GPU without `missing` sensors."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        pass

    def __init__(self, *missing, pid=0):
        self.missing, self.pid = missing, pid or os.getpid()

    def _value(self, name, value):
        if name in self.missing:
            raise self.NVMLError
        return value

    def nvmlDeviceGetMemoryInfo(self, handle):
        return self._value("memory", SimpleNamespace(used=8, total=20))

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=self.pid, usedGpuMemory=5)]

    def nvmlDeviceGetTemperature(self, handle, sensor):
        return self._value("temperature", 71)

    def nvmlDeviceGetUtilizationRates(self, handle):
        return self._value("rates", SimpleNamespace(gpu=93, memory=40))


@pytest.mark.parametrize(
    ("library", "state"),
    [
        (Library(), GpuState(8, 20, 5, 71, 93.0)),
        (Library(pid=1), GpuState(8, 20, None, 71, 93.0)),
        (Library("temperature", "rates"), GpuState(8, 20, 5, None, None)),
        (Library("memory"), None),
        (None, None),
    ],
)
def test_a_gpu_is_read_as_far_as_the_driver_tells(monkeypatch, library, state):
    monkeypatch.setattr(nvml, "_nvml", lambda: library)
    monkeypatch.setattr(nvml, "_handle", lambda library, device: "handle")
    assert gpu_state(CUDA) == state
    assert gpu_state(torch.device("cpu")) is None
