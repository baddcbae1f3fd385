"""The governor warns, asks for relief, measures at once, and ends the run only when it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.training.facts import budget, outcome, step
from tests.training.readings import CALM
from training.governor import Governor
from training.hooks import Ask
from training.monitor import Monitor, Reading
from training.settings import Critical, Limits

FULL = replace(CALM, ram=99.0)
BUSY = replace(CALM, ram=90.0)
LIMITS = Limits(ram=85, gpu=90, swap=50, critical=Critical(ram=95, gpu=95, swap=80))
STOP = Ask.PRESSURE | Ask.SAVE


class Machine:
    """A machine that is read as told: one reading at the start, one a step, one after relief."""

    def __init__(self, at_start: Reading = CALM, limits: Limits = LIMITS) -> None:
        self.now = at_start
        self.events: list[tuple[str, Mapping[str, object]]] = []
        monitor = Monitor(lambda: self.now, every_s=3600)
        # The interval passes when a test says so.
        monitor.take = self._take  # type: ignore[method-assign]
        self._new: Reading | None = None
        self.governor = Governor(limits, monitor, self._tell)
        self.governor.start(budget())

    def step(self, reading: Reading | None) -> Ask:
        """What is asked after a step, with a new reading since the last one or without."""
        self._new = reading
        if reading is not None:
            self.now = reading
        return self.governor.step(step(1))

    def relieved(self, reading: Reading) -> Ask:
        """What is asked when the machine is read so after relief."""
        self.now = reading
        return self.governor.relieved()

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    def _take(self) -> Reading | None:
        new, self._new = self._new, None
        return new

    def _tell(self, kind: str, facts: Mapping[str, object]) -> None:
        self.events.append((kind, facts))


@pytest.fixture
def machine():
    machine = Machine()
    yield machine
    machine.governor.end(outcome())


def test_a_calm_machine_asks_nothing(machine: Machine):
    assert [machine.step(CALM), machine.step(None), machine.relieved(CALM)] == [Ask.NOTHING] * 3
    assert machine.events == []


def test_three_warnings_in_a_row_ask_for_relief(machine: Machine):
    asked = [machine.step(BUSY), machine.step(None), machine.step(BUSY), machine.step(BUSY)]

    assert asked == [Ask.NOTHING, Ask.NOTHING, Ask.NOTHING, Ask.RELIEF]
    assert machine.kinds == ["limit_warning"] * 3 + ["throttled"]
    assert [facts.get("warnings") for _, facts in machine.events[:3]] == [1, 2, 3]


def test_a_calm_reading_starts_the_count_anew(machine: Machine):
    asked = [machine.step(r) for r in (BUSY, BUSY, CALM, BUSY, BUSY)]

    assert asked == [Ask.NOTHING] * 5


@pytest.mark.parametrize(
    "reading", [replace(CALM, ram=96.0), replace(CALM, gpu=96.0), replace(CALM, swap=81.0)]
)
def test_one_critical_reading_asks_for_relief_at_once(machine: Machine, reading: Reading):
    assert machine.step(reading) == Ask.RELIEF


def test_a_machine_still_critical_after_relief_saves_and_ends(machine: Machine):
    machine.step(FULL)

    assert machine.relieved(FULL) == STOP
    assert machine.kinds == ["limit_warning", "throttled", "relieved", "pressure"]
    assert all(facts["ram"] == 99.0 for _, facts in machine.events)


def test_a_machine_no_longer_critical_goes_on_and_counts_anew(machine: Machine):
    machine.step(FULL)

    assert machine.relieved(BUSY) == Ask.NOTHING
    assert [machine.step(BUSY), machine.step(BUSY), machine.step(BUSY)] == [
        Ask.NOTHING,
        Ask.NOTHING,
        Ask.RELIEF,
    ]


def test_after_three_warnings_what_is_still_over_its_limit_ends_the_run(machine: Machine):
    for _ in range(3):
        machine.step(BUSY)
    assert machine.relieved(BUSY) == STOP


def test_after_three_warnings_relief_that_helped_lets_the_run_go_on(machine: Machine):
    for _ in range(3):
        machine.step(BUSY)
    assert machine.relieved(CALM) == Ask.NOTHING
    assert machine.step(BUSY) == Ask.NOTHING


def test_relief_that_another_rank_asked_for_is_not_measured_here(machine: Machine):
    assert machine.relieved(FULL) == Ask.NOTHING
    assert machine.events == []


def test_a_reading_from_before_the_relief_counts_no_more(machine: Machine):
    machine.step(FULL)
    machine._new = FULL
    machine.relieved(CALM)

    assert machine.governor.step(step(2)) == Ask.NOTHING


def test_what_was_over_its_limit_before_the_run_cannot_end_it_but_critical_can():
    machine = Machine(at_start=BUSY)
    assert machine.kinds == ["limit_exceeded_at_start"]
    assert machine.events[0][1]["over"] == ["ram"]

    assert [machine.step(BUSY) for _ in range(6)] == [Ask.NOTHING] * 6
    assert machine.step(FULL) == Ask.RELIEF
    assert machine.relieved(FULL) == STOP
    machine.governor.end(outcome())


def test_what_became_critical_during_relief_ends_the_run_whatever_was_asked_for():
    machine = Machine(at_start=BUSY)
    for _ in range(3):
        machine.step(replace(BUSY, swap=60.0))

    assert machine.relieved(replace(FULL, swap=0.0)) == STOP
    machine.governor.end(outcome())


def test_a_machine_full_from_the_start_is_left_within_one_interval():
    machine = Machine(at_start=FULL)

    assert machine.step(FULL) == Ask.RELIEF
    assert machine.relieved(FULL) == STOP
    machine.governor.end(outcome())


def test_what_a_machine_has_not_is_no_reason(machine: Machine):
    bare = replace(CALM, gpu=None, swap=None)

    assert machine.step(bare) == Ask.NOTHING


def test_a_limit_of_one_hundred_is_no_limit():
    machine = Machine(limits=Limits(ram=100, critical=Critical(ram=100)))

    assert machine.step(replace(CALM, ram=100.0)) == Ask.NOTHING
    machine.governor.end(outcome())
