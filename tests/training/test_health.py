"""Each fault of the metrics is found once, with numbers, and what only looks like one is not."""

import math
import random
import string

import pytest

from gearshift.launcher.run.faults import FAULTS, advice
from gearshift.training.health import Health
from tests.training.facts import logged, train_plan

PLAN = train_plan(total_steps=600)


class Checked:
    """Health checks and their findings."""

    def __init__(self, plan=PLAN, **expected):
        self.events = []
        values = {name: f"<{name}>" for name in _values()}

        def state(fault, seen):
            self.events.append(advice(fault, seen, values))

        self.health = Health(state, **expected)
        self.health.start(plan)

    @property
    def found(self):
        assert {kind for kind, _ in self.events} <= {"advice", "warning"}
        return [facts["fault"] for _, facts in self.events]

    def losses(self, losses, **changes):
        """Log `losses`, each ten steps."""
        for number, loss in enumerate(losses, start=1):
            self.health.logged(logged(10 * number, loss=loss, **changes))
        return self


def _values():
    fields = (f for fault in FAULTS.values() for f in string.Formatter().parse(fault.fix))
    return {name for _, name, _, _ in fields if name}


def noisy(mean, seed=0, spread=0.1):
    """`mean` of each line, with noise of a batch."""
    numbers = random.Random(seed)
    return [value + numbers.gauss(0, spread) for value in mean]


def test_a_high_loss_is_found_whatever_the_seed_unless_it_is_a_peak_or_a_little_above():
    checked = Checked().losses([4.0, *noisy([9.0] * 59)])
    assert checked.found == ["lr_too_high"]
    assert "4.0000 in the first step" in checked.events[0][1]["seen"]
    assert checked.events[0][1]["fix"] == "<again> --lr <lower_lr>"
    assert checked.events[0][1]["cause"] == FAULTS["lr_too_high"].cause
    for losses in ([4.0, *[9.0] * 5, *[3.0] * 54], [4.0, *[5.5] * 59], [-4.0, *[-2.0] * 59]):
        assert "lr_too_high" not in Checked().losses(losses).found
    assert "lr_too_high" not in Checked().losses([4.0, *[math.nan] * 59]).found


FALLING = [4 * 0.95**n for n in range(60)]


def test_a_run_that_waits_for_data_is_found():
    waits = {"step_time_s": 1.0, "data_time_s": 0.7}
    checked = Checked().losses(FALLING, **waits)
    assert checked.found == ["starved"]
    assert checked.events[0][1]["seen"].startswith("70 %")
    for seconds, waited in ((1.0, 0.4), (0.01, 0.009)):  # less than half; a few seconds in all
        assert Checked().losses(FALLING, step_time_s=seconds, data_time_s=waited).found == []


@pytest.mark.parametrize("changes", [{"first_step": 100}, {"experience": 1}])
def test_the_loss_of_a_resumed_run_and_of_an_experience_may_rise(changes):
    checked = Checked(plan=train_plan(total_steps=600, **changes))
    assert checked.losses([4.0, *[9.0] * 59]).found == []


def test_the_fault_that_ends_a_run_is_an_event():
    checked = Checked()
    facts = {"fault": "nonfinite_later", "text": "loss nan at step 7"}
    checked.health.event("nonfinite", facts)
    ((_, facts),) = checked.events
    assert facts["seen"] == "loss nan at step 7"
    assert facts["fix"] == ["<again>", "--lr", "<lower_lr>"]
    assert facts["is_end"]
