"""The temperature of the processor from the sensors of the system."""

from types import SimpleNamespace

import psutil
import pytest

from training.resources.monitor import cpu_celsius


def sensors(**values):
    return {
        name: [SimpleNamespace(label="", current=value) for value in found] for name, found in values.items()
    }


@pytest.mark.parametrize(
    ("found", "celsius"),
    [
        (sensors(coretemp=[61.0, 74.5, 70.0], nvme=[90.0]), 74.5),
        (sensors(acpitz=[27.8], k10temp=[66.0]), 66.0),
        (sensors(coretemp=[0.0, -274.0, 4000.0], acpitz=[41.0]), 41.0),
        (sensors(nvme=[50.0]), None),
        ({}, None),
    ],
)
def test_the_hottest_sensor_of_the_processor_counts(monkeypatch, found, celsius):
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: found, raising=False)
    assert cpu_celsius() == celsius


def test_a_system_without_sensors_has_no_temperature(monkeypatch):
    def fail():
        raise OSError("no such sensor")

    monkeypatch.setattr(psutil, "sensors_temperatures", fail, raising=False)
    assert cpu_celsius() is None
    monkeypatch.delattr(psutil, "sensors_temperatures")
    assert cpu_celsius() is None
