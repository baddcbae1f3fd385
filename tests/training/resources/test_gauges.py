"""What people are shown of the machine."""

from __future__ import annotations

from dataclasses import replace

from tests.training.readings import CALM
from training.resources.monitor import Near, ResourceMonitor, ResourceUsage, named


def gauges(*percents: float, **limits: float | None) -> ResourceUsage:
    left = list(percents)
    monitor = ResourceMonitor(lambda: replace(CALM, swap=None, ram=left.pop(0)), every_s=3600)
    for _ in percents:
        monitor.read()
    return ResourceUsage(monitor, limits)


def test_the_newest_reading_and_the_highest_are_kept():
    found = gauges(40.0, 88.0, 61.5)

    assert found.newest == {"ram": 61.5, "gpu": 50.0}
    assert found.highest == {"ram": 88.0, "gpu": 50.0}


def test_what_came_near_its_limit_is_worth_a_line():
    assert gauges(79.0, ram=85, gpu=None).near_limits() == []
    assert gauges(82.0, ram=85, gpu=90).near_limits() == [Near("ram", 82.0, 85)]
    (over,) = gauges(91.0, ram=85).near_limits()
    assert over.is_over


def test_without_a_monitor_nothing_is_known():
    assert (ResourceUsage().newest, ResourceUsage().highest, ResourceUsage().near_limits()) == (
        {},
        {},
        [],
    )


def test_files_have_percents_under_names_that_say_so():
    assert named({"ram": 61.54}) == {"ram_percent": 61.5}
