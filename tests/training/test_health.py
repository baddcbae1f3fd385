"""Each fault of the metrics is found once, with numbers, and what only looks like one is not."""

import math
import random
import re
import string

import pytest

from gearshift.launcher.run.faults import FAULTS, advice
from gearshift.training.callbacks.base import EvalResult
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

    def losses(self, losses, every=10, evaluate=None, **changes):
        """Log `losses`, each `every` steps; `evaluate` gives val_loss after some of them."""
        best = math.inf
        for number, loss in enumerate(losses, start=1):
            self.health.logged(logged(number * every, loss=loss, **changes))
            value = evaluate(number) if evaluate else None
            if value is not None:
                metrics = {"val_loss": value}
                self.health.evaluated(EvalResult(number * every, "val", metrics, value < best, 1.0))
                best = min(best, value)
        return self


def _values():
    fields = (f for fault in FAULTS.values() for f in string.Formatter().parse(fault.fix))
    return {name for _, name, _, _ in fields if name}


def noisy(mean, seed=0, spread=0.1):
    """`mean` of each line, with noise of a batch."""
    numbers = random.Random(seed)
    return [value + numbers.gauss(0, spread) for value in mean]


def each(lines, value):
    """A value at every so many lines."""
    return lambda number: value(number) if number % lines == 0 else None


def test_a_flat_loss_is_found_once_with_both_means():
    checked = Checked().losses(noisy([4.0] * 60), evaluate=each(10, lambda n: 4.0))
    assert checked.found == ["not_falling"]
    _, facts = checked.events[0]
    assert re.match(r"loss [34]\.\d{4} in the first third of \d00 steps", facts["seen"])
    assert facts["fix"] == ["<again>", "--lr", "<higher_lr>"]
    assert facts["cause"] == FAULTS["not_falling"].cause


@pytest.mark.parametrize(
    ("losses", "evaluate"),
    [
        pytest.param([4 - n / 100 for n in range(60)], each(10, lambda n: 4.0), id="it falls"),
        pytest.param([4.0] * 60, each(10, lambda n: 4 - n / 1e4), id="validation improves"),
        pytest.param([4.0] * 30, each(5, lambda n: 4.0), id="too few lines"),
        pytest.param([4.0] * 90, None, id="no evaluation confirms it"),
        pytest.param([3 + n / 30 for n in range(60)], each(10, lambda n: 4.0 + n), id="it rises"),
    ],
)
def test_what_is_no_flat_loss(losses, evaluate):
    plan = train_plan(total_steps=10 * len(losses))
    assert Checked(plan=plan).losses(noisy(losses), evaluate=evaluate).found == []


def test_a_flat_loss_without_evaluations_needs_more_lines():
    checked = Checked(plan=train_plan(total_steps=2000)).losses(noisy([4.0] * 200))
    assert checked.found == ["not_falling"]


def test_a_high_loss_is_found_whatever_the_seed_unless_it_is_a_peak_or_a_little_above():
    checked = Checked().losses([4.0, *noisy([9.0] * 59)])
    assert checked.found == ["lr_too_high"]
    assert "4.0000 in the first step" in checked.events[0][1]["seen"]
    for losses in ([4.0, *[9.0] * 5, *[3.0] * 54], [4.0, *[5.5] * 59], [-4.0, *[-2.0] * 59]):
        assert "lr_too_high" not in Checked().losses(losses).found
    assert "lr_too_high" not in Checked().losses([4.0, *[math.nan] * 59]).found


FALLING = [4 * 0.95**n for n in range(60)]


def test_a_rising_validation_loss_is_found_with_its_minimum():
    rises = each(5, lambda n: 2.0 + abs(n - 20) / 10)
    checked = Checked().losses(FALLING, evaluate=rises)
    assert checked.found == ["overfitting"]
    assert checked.events[0][1]["seen"].startswith("val_loss rises since step 200, from 2.0000")


@pytest.mark.parametrize(
    ("losses", "value", "expected"),
    [
        pytest.param(FALLING, lambda n: 2 + n % 10 / 10, {}, id="it goes up and down"),
        pytest.param(FALLING, lambda n: 2 + n / 1e4, {}, id="it hardly rises"),
        pytest.param(FALLING[::-1], lambda n: 2 + n, {}, id="so does the training loss"),
        pytest.param(FALLING, lambda n: 2 + n, {"has_patience": True}, id="it will stop"),
        pytest.param(FALLING, lambda n: 2 + n, {"learns": False}, id="a noise control"),
        pytest.param(FALLING, lambda n: math.nan, {}, id="unknown"),
    ],
)
def test_what_is_no_overfitting(losses, value, expected):
    checked = Checked(**expected).losses(losses, evaluate=each(5, value))
    assert "overfitting" not in checked.found


def test_a_run_that_waits_for_data_is_found():
    waits = {"step_time_s": 1.0, "data_time_s": 0.7}
    checked = Checked().losses(FALLING, **waits)
    assert checked.found == ["starved"]
    assert checked.events[0][1]["seen"].startswith("70 %")
    for seconds, waited in ((1.0, 0.4), (0.01, 0.009)):  # less than half; a few seconds in all
        assert Checked().losses(FALLING, step_time_s=seconds, data_time_s=waited).found == []


@pytest.mark.parametrize("changes", [{"first_step": 100}, {"experience": 1}])
def test_the_loss_of_a_resumed_run_and_of_an_experience_need_not_fall(changes):
    checked = Checked(plan=train_plan(total_steps=600, **changes))
    assert checked.losses([4.0] * 60, evaluate=each(10, lambda n: 4.0)).found == []


def test_the_fault_that_ends_a_run_is_an_event():
    checked = Checked()
    facts = {"fault": "nonfinite_later", "text": "loss nan at step 7"}
    checked.health.event("nonfinite", facts)
    ((_, facts),) = checked.events
    assert facts["seen"] == "loss nan at step 7"
    assert facts["fix"] == ["<again>", "--lr", "<lower_lr>"]
    assert facts["is_end"]
