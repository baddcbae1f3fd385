"""Readings come from the real machine, off the training thread."""

import threading
from dataclasses import replace
from pathlib import Path

import torch

from tests.training.readings import CALM
from training.resources.monitor import ResourceMonitor, ResourceReader


def test_a_reading_of_this_machine_is_in_percent():
    reading = ResourceReader(torch.device("cpu"), Path()).read()
    assert 0 < reading.ram <= 100
    assert reading.swap is None or 0 <= reading.swap <= 100
    assert reading.gpu is None
    assert reading.host_bytes > 2**20


def test_readings_come_from_another_thread_and_are_taken_once():
    threads = []
    second = threading.Event()

    def read():
        threads.append(threading.get_ident())
        if len(threads) == 2:
            second.set()
        return replace(CALM, host_bytes=len(threads))

    monitor = ResourceMonitor(read, every_s=0.001)
    assert monitor.take() is None
    monitor.start()
    assert second.wait()
    monitor.stop()

    newest = monitor.take()
    assert newest is not None and newest.host_bytes == len(threads)
    assert monitor.take() is None
    assert threading.get_ident() not in threads


def test_stopping_does_not_wait_for_the_interval():
    monitor = ResourceMonitor(lambda: CALM, every_s=3600)
    monitor.start()
    monitor.stop()  # the test's own time limit is far below an hour
    ResourceMonitor(lambda: CALM, every_s=1).stop()  # one that never began
