"""The temperature of the processor, where the system reports it."""

from __future__ import annotations

import psutil

_CPU = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "acpitz")
"""Names of the sensors of processors in Linux, from the most exact to the least."""
_PLAUSIBLE = (1.0, 150.0)
"""Degrees Celsius: a sensor that is not connected gives others."""


def cpu_celsius() -> float | None:
    """The hottest sensor of the processor in degrees Celsius.

    None where the system reports none: macOS, Windows, most virtual machines and containers.
    """
    read = getattr(psutil, "sensors_temperatures", None)
    try:
        sensors = read() if read else {}
    except OSError:
        return None
    for name in _CPU:
        values = [sensor.current for sensor in sensors.get(name, ())]
        found = [value for value in values if _PLAUSIBLE[0] < value < _PLAUSIBLE[1]]
        if found:
            return max(found)
    return None
