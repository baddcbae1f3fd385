import pytest
import torch

from gearshift.models.base import Goal
from gearshift.training.agreement import Interruption
from gearshift.training.data.loader import EvaluationBatches
from gearshift.training.data.samples import Samples
from gearshift.training.evaluation.evaluate import HeldOut, HeldOutPart
from gearshift.training.evaluation.evaluator import Evaluator
from gearshift.training.evaluation.goals import goal_of
from gearshift.training.settings import SettingError
from tests.training.tiny import TinyMetric, TinyTask, make_settings, one_rank, run_tiny

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


def evaluator(metric=None, **changes):
    task = TinyTask()
    samples = Samples(task, task.data("val"), 0)
    settings = make_settings(eval={"metric": metric}, **changes)
    part = HeldOutPart(task, EvaluationBatches(samples, 2, one_rank(), settings.loader))
    return Evaluator(settings, HeldOut([part]))


def evaluated(one, *steps):
    """The evaluator after evaluations at `steps`."""
    task, never = TinyTask(), Interruption(one_rank())
    torch.manual_seed(0)
    model = task.build()
    one.start(model, never)
    for step in steps:
        one.evaluate(model, never, step, is_last=False, is_due=True)
    return one


def test_only_a_run_in_the_same_folder_keeps_the_best_and_both_keep_patience():
    first = evaluated(evaluator(stop={"patience": 5}), 1, 2, 3)
    again, fork = evaluator(stop={"patience": 5}), evaluator(stop={"patience": 5})
    again.resume(first.facts())
    fork.resume(first.facts(), keeps_best=False)
    assert again.best == first.best and first.best["step"] == 1
    assert fork.best is None
    assert first.facts()["waited"] == again.facts()["waited"] == fork.facts()["waited"] == 2
    assert evaluated(fork, 4).best["step"] == 4 and evaluated(again, 4).best["step"] == 1


@pytest.mark.parametrize(("metric", "sign"), [("error", -1), ("error min", -1), ("units max", 1)])
def test_a_value_has_the_sign_of_its_direction(metric, sign):
    found = evaluated(evaluator(metric), 1)
    value, direction = found.value
    assert direction == sign and value == found.best["value"]
