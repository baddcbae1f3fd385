"""Limits: warnings, throttling, an immediate measurement, and the end of the run at last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.training.facts import outcome, step, train_plan
from tests.training.readings import CALM
from training.callbacks.base import Action
from training.resources.limits import LimitEnforcer
from training.resources.monitor import MachineReading, ResourceMonitor
from training.settings import Critical, Limits

FULL = replace(CALM, ram=99.0)
BUSY = replace(CALM, ram=90.0)
LIMITS = Limits(ram=85, gpu=90, swap=50, critical=Critical(ram=95, gpu=95, swap=80))
STOP = Action.LIMIT_EXCEEDED | Action.SAVE


class Machine:
    """A machine with given readings: one at the start, one per step, one after throttling."""

    def __init__(self, at_start: MachineReading = CALM, limits: Limits = LIMITS) -> None:
        self.now = at_start
        self.events: list[tuple[str, Mapping[str, object]]] = []
        monitor = ResourceMonitor(lambda: self.now, every_s=3600)
        # Tests control the interval.
        monitor.take = self._take  # type: ignore[method-assign]
        self._new: MachineReading | None = None
        self.enforcer = LimitEnforcer(limits, monitor, self._emit)
        self.enforcer.start(train_plan())

    def step(self, reading: MachineReading | None) -> Action:
        """The actions after a step, with or without a new reading."""
        self._new = reading
        if reading is not None:
            self.now = reading
        return self.enforcer.step(step(1))

    def throttled(self, reading: MachineReading, left: Action = Action.FREE_MEMORY) -> Action:
        """The actions for this reading after throttling, with these throttling steps remaining."""
        self.now = reading
        return self.enforcer.throttled(left)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def _take(self) -> MachineReading | None:
        new, self._new = self._new, None
        return new

    def _emit(self, kind: str, facts: Mapping[str, object]) -> None:
        self.events.append((kind, facts))


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    machine.enforcer.end(outcome())


def test_three_warnings_in_a_row_request_throttling(machine):
    actions = [machine.step(BUSY), machine.step(None), machine.step(BUSY), machine.step(BUSY)]

    assert actions == [Action.NOTHING, Action.NOTHING, Action.NOTHING, Action.FREE_MEMORY]
    assert machine.kinds == ["limit_warning"] * 3 + ["throttled"]
    assert [facts.get("warnings") for _, facts in machine.events[:3]] == [1, 2, 3]


def test_a_calm_reading_resets_the_count(machine):
    actions = [machine.step(r) for r in (BUSY, BUSY, CALM, BUSY, BUSY)]

    assert actions == [Action.NOTHING] * 5


@pytest.mark.parametrize(
    "reading", [replace(CALM, ram=96.0), replace(CALM, gpu=96.0), replace(CALM, swap=81.0)]
)
def test_one_critical_reading_requests_throttling_at_once(machine, reading):
    assert machine.step(reading) == Action.FREE_MEMORY


def test_a_machine_still_critical_after_throttling_saves_and_ends(machine):
    machine.step(FULL)

    assert machine.throttled(FULL) == STOP
    assert machine.kinds == ["limit_warning", "throttled", "relieved", "pressure"]
    assert all(facts["ram"] == 99.0 for _, facts in machine.events)


def test_a_machine_no_longer_critical_continues_and_resets_the_count(machine):
    machine.step(FULL)

    assert machine.throttled(BUSY) == Action.NOTHING
    assert [machine.step(BUSY), machine.step(BUSY), machine.step(BUSY)] == [
        Action.NOTHING,
        Action.NOTHING,
        Action.FREE_MEMORY,
    ]


def test_throttling_requested_by_another_rank_is_not_measured_here(machine):
    assert machine.throttled(FULL) == Action.NOTHING
    assert machine.events == []


def test_a_reading_from_before_the_throttling_is_ignored(machine):
    machine.step(FULL)
    machine._new = FULL
    machine.throttled(CALM)

    assert machine.enforcer.step(step(2)) == Action.NOTHING


def test_a_limit_exceeded_before_the_run_cannot_end_it_but_a_critical_value_can():
    machine = Machine(at_start=BUSY)
    assert machine.kinds == ["limit_exceeded_at_start"]
    assert machine.events[0][1]["over"] == ["ram"]

    assert [machine.step(BUSY) for _ in range(6)] == [Action.NOTHING] * 6
    assert machine.step(FULL) == Action.FREE_MEMORY
    assert machine.throttled(FULL) == STOP
    machine.enforcer.end(outcome())


def test_a_value_that_becomes_critical_during_throttling_ends_the_run():
    machine = Machine(at_start=BUSY)
    for _ in range(3):
        machine.step(replace(BUSY, swap=60.0))

    assert machine.throttled(replace(FULL, swap=0.0)) == STOP
    machine.enforcer.end(outcome())


def test_a_limit_of_one_hundred_is_no_limit():
    machine = Machine(limits=Limits(ram=100, critical=Critical(ram=100)))

    assert machine.step(replace(CALM, ram=100.0)) == Action.NOTHING
    machine.enforcer.end(outcome())


ALL = Action.FREE_MEMORY | Action.FEWER_WORKERS | Action.SMALLER_BATCH


def settle(machine: Machine, reading: MachineReading) -> list[Action]:
    """The actions of the steps after smaller micro-batches, with these readings."""
    machine.now = reading
    return [machine.step(None), machine.step(None)]


def test_a_lasting_critical_reading_takes_every_step_and_ends_without_another_interval(machine):
    assert machine.step(FULL) == Action.FREE_MEMORY
    assert machine.throttled(FULL, ALL) == Action.FEWER_WORKERS
    assert machine.throttled(FULL, ALL) == Action.FEWER_WORKERS
    assert (
        machine.throttled(FULL, Action.FREE_MEMORY | Action.SMALLER_BATCH) == Action.SMALLER_BATCH
    )
    assert machine.throttled(FULL, Action.FREE_MEMORY | Action.SMALLER_BATCH) == Action.NOTHING
    assert settle(machine, FULL) == [Action.NOTHING, Action.FREE_MEMORY]
    assert machine.throttled(FULL, Action.FREE_MEMORY | Action.SMALLER_BATCH) == STOP
    assert machine.kinds[-3:] == ["settled", "relieved", "pressure"]


def test_after_warnings_the_micro_batch_is_halved_as_often_as_it_can_be(machine):
    for _ in range(3):
        machine.step(BUSY)
    assert machine.throttled(BUSY, Action.SMALLER_BATCH) == Action.SMALLER_BATCH
    assert machine.throttled(BUSY, Action.SMALLER_BATCH) == Action.NOTHING
    assert settle(machine, BUSY) == [Action.NOTHING, Action.FREE_MEMORY]
    assert machine.throttled(BUSY, Action.SMALLER_BATCH) == Action.SMALLER_BATCH
    assert machine.throttled(BUSY, Action.FREE_MEMORY) == Action.NOTHING
    assert settle(machine, CALM) == [Action.NOTHING, Action.NOTHING]
    assert [machine.step(BUSY), machine.step(BUSY)] == [Action.NOTHING] * 2


def test_throttling_without_lasting_effect_leads_to_the_next_throttling_step(machine):
    machine.step(FULL)
    assert machine.throttled(CALM, ALL) == Action.NOTHING
    machine.step(CALM)

    assert machine.step(FULL) == Action.FREE_MEMORY
    assert machine.throttled(CALM, ALL) == Action.FEWER_WORKERS
    assert machine.throttled(CALM, ALL) == Action.NOTHING


def test_long_after_throttling_a_limit_is_a_new_incident(machine):
    machine.step(FULL)
    machine.throttled(CALM, ALL)
    for _ in range(10):
        machine.step(CALM)
    machine.step(FULL)

    assert machine.throttled(CALM, ALL) == Action.NOTHING


def test_a_run_alone_on_a_device_may_fill_it(machine):
    alone = replace(CALM, gpu=99.0, gpu_others=0.5)
    for _ in range(4):
        assert machine.step(alone) == Action.NOTHING


def test_a_busy_processor_costs_workers_and_never_the_run():
    busy = replace(CALM, cpu=99.0)
    machine = Machine(limits=Limits(cpu=90))
    for _ in range(3):
        machine.step(busy)

    assert machine.throttled(busy, ALL) == Action.FEWER_WORKERS
    assert machine.throttled(busy, Action.FREE_MEMORY | Action.SMALLER_BATCH) == Action.NOTHING
    assert machine.kinds[-1] == "limit_given_up"
    assert [machine.step(busy) for _ in range(4)] == [Action.NOTHING] * 4
    machine.enforcer.end(outcome())


def test_a_filling_disk_is_reported_once_and_a_full_one_ends_the_run_while_it_can_save(machine):
    actions = [machine.step(replace(CALM, disk=96.0)) for _ in range(4)]
    assert actions == [Action.NOTHING] * 4
    assert machine.kinds == ["disk_filling"]

    assert machine.step(replace(CALM, disk=99.5)) == STOP
    assert machine.events[-1][1]["over"] == ["disk"]


def test_a_disk_that_was_full_before_the_run_is_ignored():
    machine = Machine(at_start=replace(CALM, disk=99.5))

    assert [(kind, facts["over"]) for kind, facts in machine.events] == [
        ("limit_given_up", ["disk"])
    ]
    assert machine.step(replace(CALM, disk=99.6)) == Action.NOTHING
    machine.enforcer.end(outcome())


def test_a_disk_that_was_filling_before_the_run_ends_it_when_it_is_full():
    machine = Machine(at_start=replace(CALM, disk=96.0))

    assert machine.kinds == ["limit_exceeded_at_start"]
    assert machine.step(replace(CALM, disk=97.0)) == Action.NOTHING
    assert machine.step(replace(CALM, disk=99.6)) == STOP
    machine.enforcer.end(outcome())


def test_heat_takes_workers_and_then_is_no_longer_watched():
    hot = replace(CALM, temperature=95.0)
    machine = Machine(limits=Limits())
    actions = [machine.step(hot) for _ in range(3)]
    assert actions == [Action.NOTHING, Action.NOTHING, Action.FREE_MEMORY]
    left = Action.FREE_MEMORY | Action.FEWER_WORKERS | Action.SMALLER_BATCH
    assert machine.throttled(hot, left) == Action.FEWER_WORKERS
    assert machine.throttled(hot, Action.FREE_MEMORY | Action.SMALLER_BATCH) == Action.NOTHING
    assert machine.kinds[-1] == "limit_given_up"
    assert [machine.step(hot) for _ in range(3)] == [Action.NOTHING] * 3


def test_heat_over_a_critical_value_ends_the_run():
    hot = replace(CALM, temperature=101.0)
    machine = Machine(limits=Limits(critical=Critical(temperature=100)))
    assert machine.step(hot) == Action.FREE_MEMORY
    assert machine.throttled(hot) == STOP
