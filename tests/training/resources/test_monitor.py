"""Readings come from the real machine, off the training thread."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import torch

from tests.fake_nvml import FakeGpu, build_nvml, needs_c, use_nvml
from tests.training.readings import CALM
from training.resources.monitor import MachineReader, ResourceMonitor, usage_of


def test_a_reading_of_this_machine_is_in_percent():
    reading = MachineReader(torch.device("cpu"), Path()).read()
    assert 0 < reading["ram"] <= 100
    assert reading["swap"] is None or 0 <= reading["swap"] <= 100
    assert reading["gpu"] is None
    assert reading["host_bytes"] > 2**20
    assert reading.keys() == CALM.keys()


@needs_c
def test_a_reading_of_a_gpu_tells_the_use_of_others_apart(tmp_path, monkeypatch):
    """A desktop holds 2 of 20, this process 9 with its context, of which 1 is unused reserve."""
    gpu = FakeGpu("GPU-a", 20, used=11, process=(os.getpid(), 9), celsius=200, busy=93)
    use_nvml(monkeypatch, build_nvml(tmp_path, gpu))
    fake = {"get_device_properties": SimpleNamespace(uuid="a")}
    fake |= {"memory_reserved": 8, "memory_allocated": 7}
    for name, value in fake.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    reading = MachineReader(torch.device("cuda", 0), Path()).read()
    assert (reading["gpu"], reading["gpu_all"], usage_of(reading)["gpu"]) == (10.0, 50.0, 50.0)
    names = ("gpu_driver_bytes", "temperature", "gpu_busy")
    assert [reading[name] for name in names] == [11, 200.0, 93.0]


def test_readings_come_from_another_thread_and_are_taken_once():
    threads = []
    second = threading.Event()

    def read():
        threads.append(threading.get_ident())
        if len(threads) == 2:
            second.set()
        return {**CALM, "host_bytes": len(threads)}

    monitor = ResourceMonitor(read, every_s=0.001)
    assert monitor.take() is None
    monitor.start()
    assert second.wait()
    monitor.stop()

    newest = monitor.take()
    assert newest is not None and newest["host_bytes"] == len(threads)
    assert monitor.take() is None
    assert threading.get_ident() not in threads
