"""Readings of a machine for tests."""

from training.resources.monitor import MachineReading

CALM = MachineReading(
    ram=40.0,
    swap=0.0,
    gpu=10.0,
    host_bytes=2**30,
    gpu_reserved_bytes=2**31,
    gpu_driver_bytes=2**32,
    gpu_all=50.0,
)
