"""Readings come from the real machine, off the training thread."""

import os
import threading
from types import SimpleNamespace

import pytest
import torch

from gearshift.training.resources.limits import ResourceMonitor
from tests.fake_nvml import FakeGpu, build_nvml, needs_c, use_nvml
from tests.training.readings import CALM

CPU = torch.device("cpu")


def test_a_reading_of_this_machine_is_in_percent():
    monitor = ResourceMonitor(CPU, every_s=3600)
    reading = monitor.read()
    assert 0 < reading["ram"] <= 100
    assert reading["swap"] is None or 0 <= reading["swap"] <= 100
    assert reading["gpu"] is None
    assert reading.keys() == CALM.keys()
    assert monitor.newest["ram"] == reading["ram"]


@needs_c
@pytest.mark.parametrize("is_shown", [True, False])
def test_a_reading_of_a_gpu_tells_the_use_of_others_apart(tmp_path, monkeypatch, is_shown):
    """A desktop holds 2 GiB of 20, this process 9 with its context, of which 1 is unused reserve.

    Of a process that NVML does not show, a gigabyte outside the allocator is its own.
    """
    gib = 2**30
    process = (os.getpid() if is_shown else 1, 9 * gib)
    gpu = FakeGpu("GPU-a", 20 * gib, used=11 * gib, process=process, busy=93)
    use_nvml(monkeypatch, build_nvml(tmp_path, gpu))
    fake = {"get_device_properties": SimpleNamespace(uuid="a")}
    fake |= {"memory_reserved": 8 * gib, "memory_allocated": 7 * gib}
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monitor = ResourceMonitor(torch.device("cuda", 0), every_s=3600)
    reading = monitor.read()
    assert (reading["gpu"], reading["gpu_all"], monitor.newest["gpu"]) == (10.0, 50.0, 50.0)
    assert reading["gpu_busy"] == 93.0


def test_readings_come_from_another_thread_with_the_use_of_the_cpu():
    threads = []
    second = threading.Event()

    class Counting(ResourceMonitor):
        def read(self, cpu=None):
            threads.append(threading.get_ident())
            if len(threads) == 2:
                second.set()
            return {**CALM, "cpu": cpu, "ram": len(threads)}

    monitor = Counting(CPU, every_s=0.001)
    assert monitor.new is None
    monitor.start()
    assert second.wait()
    monitor.stop()
    assert monitor.new["ram"] == len(threads) and 0 <= monitor.new["cpu"] <= 100
    assert threading.get_ident() not in threads
