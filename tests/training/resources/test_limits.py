"""Limits: warnings, throttling, an immediate measurement, and the end of the run at last."""

import pytest

from gearshift.training.callbacks.base import Action
from gearshift.training.resources.limits import LimitEnforcer
from gearshift.training.settings import Critical, Limits
from tests.training.facts import step, train_plan
from tests.training.readings import CALM, SimulatedMonitor

FULL = {**CALM, "ram": 99.0}
BUSY = {**CALM, "ram": 90.0}
LIMITS = Limits(ram=85, gpu=90, swap=50, critical=Critical(ram=95, gpu=95, swap=80))
NOTHING, FREE, WORKERS, SMALLER = (
    *(Action.NOTHING, Action.FREE_MEMORY, Action.FEWER_WORKERS, Action.SMALLER_BATCH),
)
STOP = Action.LIMIT_EXCEEDED | Action.SAVE


class Machine:
    """A machine with given readings: one at the start, one per step, one after throttling."""

    def __init__(self, at_start=CALM, limits=LIMITS, chosen=()):
        self.events, self.monitor = [], SimulatedMonitor(at_start)
        self.enforcer = LimitEnforcer(
            limits, self.monitor, lambda *event: self.events.append(event), chosen
        )
        self.enforcer.start(train_plan())

    def steps(self, *readings):
        """The actions after steps, each with a new reading or None."""
        return [self._step(reading) for reading in readings]

    def throttled(self, reading, left=NOTHING):
        """The action of the step after throttling, with this reading and these steps remaining."""
        assert self._step(None) == NOTHING  # ranks act on a request a step later
        self.enforcer.throttled(left)
        return self._step(reading)

    @property
    def kinds(self):
        return [kind for kind, _ in self.events]

    def _step(self, reading):
        self.monitor.new = reading
        self.monitor.now = reading or self.monitor.now
        return self.enforcer.step(step(1))


@pytest.fixture
def machine():
    return Machine()


def test_three_warnings_in_a_row_request_throttling_and_then_the_end(machine):
    assert machine.steps(BUSY, None, BUSY, BUSY) == [NOTHING, NOTHING, NOTHING, FREE]
    assert machine.kinds == ["limit_warning"] * 3 + ["throttled"]
    assert [facts.get("warnings") for _, facts in machine.events[:3]] == [1, 2, 3]
    assert machine.throttled(BUSY) == STOP


@pytest.mark.parametrize("over", [{"ram": 96.0}, {"gpu": 96.0}, {"swap": 81.0}])
def test_one_critical_reading_requests_throttling_at_once(machine, over):
    assert machine.steps({**CALM, **over}) == [FREE]


def test_fewer_workers_do_not_help_a_full_gpu(machine):
    full = {**CALM, "gpu": 96.0}
    assert machine.steps(full) == [FREE]
    assert machine.throttled(full, WORKERS | SMALLER) == SMALLER


@pytest.mark.parametrize("at_start", [CALM, FULL])
def test_a_machine_still_critical_after_throttling_saves_and_ends(at_start):
    machine = Machine(at_start)
    assert machine.steps(FULL) == [FREE]
    assert machine.throttled(FULL) == STOP
    assert machine.kinds[-4:] == ["limit_warning", "throttled", "relieved", "pressure"]
    assert all(facts["ram"] == 99.0 for _, facts in machine.events)


def test_a_machine_no_longer_critical_continues_until_it_has_three_warnings(machine):
    machine.steps(FULL)
    assert machine.throttled(BUSY, WORKERS) == NOTHING
    assert machine.steps(CALM, BUSY, BUSY, BUSY) == [NOTHING, NOTHING, NOTHING, WORKERS]


def test_a_calm_machine_begins_with_the_first_step_again(machine):
    machine.steps(FULL)
    assert machine.throttled(CALM, WORKERS) == NOTHING
    assert machine.steps(*[CALM] * 10, FULL)[-1] == FREE


def test_throttling_requested_by_another_rank_is_not_measured_here(machine):
    machine.enforcer.throttled(WORKERS)
    assert machine.steps(None, None) == [NOTHING, NOTHING] and machine.events == []


def test_a_limit_exceeded_before_the_run_cannot_end_it_but_a_critical_value_can():
    machine = Machine(BUSY)
    assert [(kind, facts["over"]) for kind, facts in machine.events] == [
        ("limit_exceeded_at_start", ["ram"])
    ]
    assert machine.steps(*[BUSY] * 6, FULL) == [NOTHING] * 6 + [FREE]
    assert machine.throttled(FULL) == STOP


def test_a_value_that_becomes_critical_during_throttling_ends_the_run():
    machine = Machine(BUSY)
    machine.steps(*[{**BUSY, "swap": 60.0}] * 3)
    assert machine.throttled({**FULL, "swap": 0.0}) == STOP


def test_a_limit_of_one_hundred_is_no_limit_and_a_run_may_fill_what_others_leave_of_a_gpu():
    unlimited = Machine(limits=Limits(ram=100, critical=Critical(ram=100)))
    assert unlimited.steps({**CALM, "ram": 100.0}) == [NOTHING]
    for others in (0.5, 10.0, 89.0, None):  # 10: a desktop
        full = {**CALM, "gpu": others, "gpu_all": 99.0}
        assert Machine().steps(*[full] * 4) == [NOTHING] * 4
    crowded = {**CALM, "gpu": 91.0, "gpu_all": 99.0}
    assert Machine().steps(*[crowded] * 3) == [NOTHING, NOTHING, FREE]


def test_a_lasting_critical_reading_takes_every_step_and_ends_without_another_interval(machine):
    assert machine.steps(FULL) == [FREE]
    assert machine.throttled(FULL, WORKERS | SMALLER) == WORKERS
    assert machine.throttled(FULL, WORKERS | SMALLER) == WORKERS
    assert machine.throttled(FULL, SMALLER) == SMALLER
    assert machine.throttled(FULL, SMALLER) == STOP
    assert machine.kinds[-2:] == ["relieved", "pressure"]


def test_a_limit_exceeded_again_soon_after_relief_takes_the_next_step(machine):
    assert machine.steps(FULL) == [FREE]
    assert machine.throttled(CALM, WORKERS) == NOTHING
    assert machine.steps(CALM, FULL) == [NOTHING, WORKERS]


def test_a_limit_that_the_user_set_and_the_machine_does_not_report_is_named_once():
    machine = Machine({**CALM, "gpu": None}, chosen=("ram", "gpu"))
    assert [facts["text"].split()[0] for _, facts in machine.events] == ["limits.gpu"]
