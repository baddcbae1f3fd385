from __future__ import annotations

import pytest

from models.base import Goal
from tests.training.tiny import RecordingCallback, TinyTask, one_rank, run_tiny
from training.evaluation.evaluator import goal_of
from training.settings import SettingError

NAMES = ["accuracy", "error"]
TASK_GOAL = Goal("error", "min")


@pytest.mark.parametrize(
    ("written", "goal"),
    [
        ("error", TASK_GOAL),
        ("error min", TASK_GOAL),
        ("error max", Goal("error", "max")),
        ("accuracy max", Goal("accuracy", "max")),
        ("  accuracy   min ", Goal("accuracy", "min")),
    ],
)
def test_the_goal_is_parsed_from_its_setting(written, goal):
    assert goal_of(written, TASK_GOAL, NAMES) == goal


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (
            "acuracy max",
            "eval.metric 'acuracy max' names no metric of this task; allowed: accuracy, error",
        ),
        (
            "accuracy",
            "eval.metric 'accuracy' does not say which way is better; "
            "allowed: 'accuracy min' or 'accuracy max'",
        ),
        (
            "accuracy up",
            "eval.metric 'accuracy up' does not say which way is better; "
            "allowed: 'accuracy min' or 'accuracy max'",
        ),
    ],
)
def test_an_invalid_metric_is_an_error_with_the_allowed_ones(written, text):
    with pytest.raises(SettingError) as caught:
        goal_of(written, TASK_GOAL, NAMES)
    assert str(caught.value) == text


def test_an_unknown_metric_is_an_error_before_callbacks_start():
    callback = RecordingCallback()
    with pytest.raises(SettingError):
        run_tiny(one_rank(), TinyTask(), callback, eval={"metric": "loss"})
    assert callback.calls == []


def test_eval_metric_selects_the_best():
    run = run_tiny(
        one_rank(),
        train={"epochs": 2},
        eval={"every": 1, "metric": "error max"},
        optim={"lr": 0.1},
    )
    errors = {e.step: e.metrics["error"] for e in run.recorder.evaluations}
    assert run.outcome.best == {
        "metric": "error",
        "direction": "max",
        "value": max(errors.values()),
        "step": max(errors, key=errors.get),
    }


def test_patience_completes_the_run_with_its_reason():
    run = run_tiny(
        one_rank(),
        train={"epochs": 4},
        eval={"every": 1, "metric": "units max"},
        stop={"patience": 2},
    )
    # The number of units is the same each time: the first evaluation stays the best.
    assert run.outcome.steps == 3
    assert run.outcome.status == "completed"
    assert run.outcome.exit_code == 0
    assert run.outcome.reason == "stop.patience: units did not improve in 2 evaluations"
    assert sorted(run.shelf.saved) == [1, 3]
