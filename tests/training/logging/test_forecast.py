"""What a run is predicted to take, kept until its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.training.facts import evaluation, outcome, step, train_plan
from tests.training.logging.clock import Clock
from training.logging import console_text
from training.logging.forecast import LONG_S, MEASURED_STEPS, Forecast
from training.train_plan import TrainPlan

STEP_S, EVAL_S = 0.5, 4.0


def ended(plan: TrainPlan, steps: int, wall_s: float = 0.0, **changes: object) -> Forecast:
    """The forecast of a run with an evaluation each 10 steps, and a save at its end.

    Its first step takes 3 s; later ones get slower after step 20.
    """
    clock = Clock()
    began = clock.seconds
    forecast = Forecast(lambda: {"device": None, "host": 7}, now=clock)
    forecast.start(plan)
    first = plan.first_step + 1
    for number in range(first, steps + 1):
        clock.seconds += 3.0 if number == first else STEP_S if number <= 20 else 9.0
        forecast.step(step(number))
        if number % 10 == 0:
            clock.seconds += EVAL_S
            forecast.evaluated(evaluation(number))
    took = replace(outcome(steps=steps, **changes), wall_s=wall_s + clock.seconds - began)
    forecast.end(took)
    return forecast


def test_the_duration_is_predicted_from_the_first_steps_and_the_first_evaluation():
    plan = train_plan(total_steps=40, eval_every=10)
    found = ended(plan, 40)
    assert found.wall_s == pytest.approx(3.0 + 39 * STEP_S + 4 * EVAL_S)
    assert found.is_least  # no save was measured before the end
    assert found.peaks == {"device": None, "host": 7}


def test_without_an_evaluation_on_the_way_it_is_a_lower_bound():
    found = ended(train_plan(total_steps=9, eval_every=None), 9)
    assert found.wall_s == pytest.approx(3.0 + 8 * STEP_S)
    assert found.is_least


def test_a_resumed_run_counts_what_it_took_before():
    plan = train_plan(total_steps=40, eval_every=10, first_step=12)
    found = ended(plan, 40, wall_s=100.0)
    fresh = ended(plan, 40)
    assert fresh.wall_s is not None
    assert found.wall_s == pytest.approx(100.0 + fresh.wall_s)


def test_too_few_steps_and_other_ends_have_no_prediction():
    plan = train_plan(total_steps=40, eval_every=10)
    assert ended(plan, MEASURED_STEPS, status="completed").wall_s is None
    assert ended(plan, 30, status="stopped").wall_s is None
    assert ended(plan, 30, status="stopped").peaks is not None


@pytest.mark.parametrize("is_long", [True, False])
def test_a_run_of_more_than_a_day_says_so_once(is_long: bool):
    clock, events = Clock(), []
    forecast = Forecast(
        quicker=lambda: ["--model language:tiny", "--mode fast"],
        emit=lambda kind, facts: events.append((kind, facts)),
        now=clock,
    )
    steps = round(LONG_S / STEP_S) + (1 if is_long else -20)
    forecast.start(train_plan(total_steps=steps, eval_every=None))
    for number in range(1, 12):
        clock.seconds += STEP_S
        forecast.step(step(number))
    clock.seconds += EVAL_S
    forecast.evaluated(evaluation(11))
    assert [kind for kind, _ in events] == ["long_run"] * is_long
    if is_long:
        assert console_text.render_notice(*events[0]) == (
            "time       about 1d00h for this run; quicker: --model language:tiny  or  --mode fast"
        )
