from __future__ import annotations

import math

import pytest

from training.evaluation.early_stopping import Best, Stopping
from training.settings import Stop


def judged(values, direction="min", **changes):
    stopping = Stopping(Stop(**changes))
    return [
        (stopping.judge(step, value, direction), stopping.is_out_of_patience)
        for step, value in enumerate(values)
    ]


def test_the_first_value_is_the_best_and_only_better_ones_after_it():
    assert [best for best, _ in judged([5, 6, 5, 4.9])] == [True, False, False, True]
    assert [best for best, _ in judged([5, 6, 5, 7], "max")] == [True, True, False, True]


@pytest.mark.parametrize("direction", ["min", "max"])
def test_not_a_number_is_never_the_best(direction):
    found = judged([math.nan, 3.0, math.nan], direction)
    assert [best for best, _ in found] == [False, True, False]


def test_patience_counts_evaluations_without_improvement():
    found = judged([5, 6, 4, 4, 5, 3], patience=2)
    assert [out for _, out in found] == [False, False, False, False, True, False]


def test_not_a_number_uses_up_patience():
    assert judged([math.nan, math.nan], patience=2)[-1] == (False, True)


def test_less_than_min_delta_is_the_best_but_no_improvement():
    found = judged([5, 4.9, 4.8, 3.9], patience=2, min_delta=1.0)
    assert found == [(True, False), (True, False), (True, True), (True, False)]


def test_without_patience_no_run_ends():
    assert not any(out for _, out in judged([5] * 50))


def test_facts_bring_back_best_and_patience():
    first = Stopping(Stop(patience=3, min_delta=0.5))
    for step, value in enumerate([5.0, 4.9, 4.8]):
        first.judge(step, value, "min")
    second = Stopping(Stop(patience=3, min_delta=0.5))
    second.resume(first.facts())
    assert second.best == Best(4.8, 2)
    assert second.waited == 2
    assert not second.judge(3, 4.9, "min")
    assert second.is_out_of_patience
