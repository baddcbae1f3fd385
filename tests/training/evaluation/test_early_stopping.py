"""Early stopping, patience and target values."""

import math

import pytest

from gearshift.models.base import Goal
from gearshift.training.evaluation.early_stopping import EarlyStopping, parse_target
from gearshift.training.settings import SettingError, Stop
from tests.training.tiny import TinyTask, one_rank, run_tiny


def updates(values, direction="min", **changes):
    stopping = EarlyStopping(Stop(**changes))
    return [
        (stopping.add(step, value, direction), stopping.is_out_of_patience)
        for step, value in enumerate(values)
    ]


def test_the_first_value_is_the_best_and_only_better_ones_after_it():
    assert [best for best, _ in updates([5, 6, 5, 4.9])] == [True, False, False, True]
    assert [best for best, _ in updates([5, 6, 5, 7], "max")] == [True, True, False, True]
    for direction in ("min", "max"):
        found = updates([math.nan, 3.0, math.nan], direction)
        assert [best for best, _ in found] == [False, True, False]


def test_patience_counts_evaluations_without_improvement():
    found = updates([5, 6, 4, 4, 5, 3], patience=2)
    assert [out for _, out in found] == [False, False, False, False, True, False]
    assert not any(out for _, out in updates([5] * 50))  # without patience


def test_less_than_min_delta_is_the_best_but_no_improvement():
    found = updates([5, 4.9, 4.8, 3.9], patience=2, min_delta=1.0)
    assert found == [(True, False), (True, False), (True, True), (True, False)]


def test_patience_counts_only_evaluations_that_are_due():
    stopping = EarlyStopping(Stop(patience=2))
    # Those at the end of a process are not due: the values that a whole run has are 5, 6 and 7.
    given = [(5, True), (9, False), (6, True), (9, False), (4.5, False), (7, True)]
    whole = EarlyStopping(Stop(patience=2))
    for step, (value, is_due) in enumerate(given):
        stopping.add(step, value, "min", is_due=is_due)
        if is_due:
            whole.add(step, value, "min")
        assert (stopping.waited, stopping.is_out_of_patience) == (
            whole.waited,
            whole.is_out_of_patience,
        )
    assert stopping.best["value"] == 4.5


FALLING = {
    "train": {"epochs": 4},
    "log": {"every": 1},
    "eval": {"every": 1},
    "optim": {"name": "sgd", "lr": 0.05, "clip_norm": None},
}


@pytest.fixture(scope="module")
def whole():
    return run_tiny(one_rank(), **FALLING)


def errors(run):
    return {e.step: e.metrics["error"] for e in run.recorder.evaluations}


@pytest.mark.parametrize(
    ("direction", "value", "is_reached"),
    [("min", 1.9, True), ("min", 2.0, False), ("max", 1.9, True), ("max", 1.8, False)],
)
def test_the_goal_gives_the_direction_of_a_target(direction, value, is_reached):
    aimed = parse_target("m = 1.9").directed(Goal("m", direction))
    assert aimed.is_reached({"m": value}) is is_reached
    assert not aimed.is_reached({"m": math.nan})
    assert not aimed.is_reached({})


def test_a_run_ends_at_the_evaluation_that_reaches_its_target(whole):
    found = errors(whole)
    aim = found[5]
    first = next(step for step in found if found[step] <= aim)
    run = run_tiny(one_rank(), **FALLING, stop={"at": f"error = {aim!r}"})
    assert (run.outcome.steps, run.outcome.status, run.outcome.exit_code) == (first, "completed", 0)
    assert run.outcome.reason.endswith(f"(error <= {aim:g})")
    assert first in run.shelf.saved
    assert {step: found[step] for step in errors(run)} == errors(run)  # the schedule is the same


@pytest.mark.parametrize("at", ["eror <= 1", "units = 3"])
def test_an_invalid_target_is_an_error_before_the_first_step(at):
    with pytest.raises(SettingError) as caught:
        run_tiny(one_rank(), TinyTask(), stop={"at": at})
    assert (caught.value.key, caught.value.value) == ("stop.at", at)
