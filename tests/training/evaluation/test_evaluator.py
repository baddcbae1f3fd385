import pytest

from models.base import Goal
from tests.training.tiny import TinyMetric, TinyTask, one_rank, run_tiny
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
    ("written", "allowed"),
    [("acuracy max", "accuracy, error"), ("accuracy", "'accuracy min' or 'accuracy max'")],
)
def test_an_invalid_metric_is_an_error_with_the_allowed_ones(written, allowed):
    with pytest.raises(SettingError) as caught:
        goal_of(written, TASK_GOAL, NAMES)
    assert (caught.value.key, caught.value.allowed) == ("eval.metric", allowed)


class FinalMetric(TinyMetric):
    """The error by another name."""

    def result(self, counts):
        return {"final_error": super().result(counts)["error"]}


class TaskWithFinalMetric(TinyTask):
    def final_metric(self):
        return FinalMetric()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"train": {"max_steps": 3}, "eval": {"every": 2}}, [2, 3]),
        ({"train": {"epochs": 2}, "eval": {"every": 3}}, [3, 6]),
        # These evaluations end their run.
        ({"eval": {"every": 2}, "stop": {"at": "error >= 0"}}, [2]),
        ({"eval": {"every": 1, "metric": "units max"}, "stop": {"patience": 1}}, [1, 2]),
    ],
)
def test_the_last_evaluation_alone_has_the_final_metrics(changes, steps):
    evaluations = run_tiny(one_rank(), TaskWithFinalMetric(), **changes).recorder.evaluations
    assert [e.step for e in evaluations] == steps
    *others, last = evaluations
    assert last.metrics["final_error"] == last.metrics["error"]
    assert 0 < last.final_s < last.seconds
    assert all("final_error" not in e.metrics and e.final_s == 0 for e in others)
