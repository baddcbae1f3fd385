"""Simple methods are measured at the end of a run, on its data, and stand beside its best value."""

import time
from dataclasses import dataclass

import pytest

from gearshift.engines.world import open_world
from gearshift.launcher.run.faults import FAULTS
from gearshift.models.base import Baseline, Goal
from gearshift.training.callbacks.base import Action
from gearshift.training.evaluation import evaluate
from gearshift.training.evaluation.evaluate import beside_baseline
from gearshift.training.health import Health
from tests.training.facts import train_plan
from tests.training.tiny import RecordingCallback, TinyTask, one_rank, run_tiny
from tests.waiting import until


@dataclass
class ComparedTask(TinyTask):
    """It has the baselines `errors`; `seen` are the samples that its methods got."""

    errors: tuple = ()
    seen: tuple = ()

    def baselines(self, train, held_out):
        self.seen = [
            [int(i) for batch in each for i in batch["index"]] for each in (train, held_out)
        ]
        return [Baseline(f"method {number}", dict(error=e)) for number, e in enumerate(self.errors)]


def ended(task, recorder=None, **changes):
    return run_tiny(one_rank(), task, recorder, **changes).outcome


def test_methods_get_all_samples_once_and_stand_beside_the_best_value():
    task = ComparedTask(errors=(9.0, 1e-9, 3.0))
    recorder = RecordingCallback()
    outcome = ended(task, recorder)
    assert task.seen == [list(range(24)), list(range(7))]
    assert [method["name"] for method in outcome.baselines] == ["method 1", "method 2", "method 0"]
    assert outcome.best["baseline"] == {"name": "method 1", "value": 1e-9}
    [facts] = [facts for kind, facts in recorder.events if kind == "baselines"]
    assert facts["is_below"] is True


def test_of_a_larger_split_they_get_an_even_part(monkeypatch):
    monkeypatch.setattr(evaluate, "MOST_SAMPLES", 5)
    task = ComparedTask(errors=(1e9,))
    recorder = RecordingCallback()
    ended(task, recorder)
    train, held_out = task.seen
    assert (len(train), len(held_out)) == (5, 5)
    assert train == sorted(set(train)) and train[-1] >= 18
    [facts] = [facts for kind, facts in recorder.events if kind == "baselines"]
    assert facts["is_below"] is False


def test_where_more_is_better_the_largest_is_the_nearest():
    task = ComparedTask(errors=(9.0, 1e-9, 3.0))
    task.goal = Goal("error", "max")
    assert ended(task).best["baseline"] == {"name": "method 0", "value": 9.0}


def test_a_method_without_the_metric_of_the_goal_is_listed_only():
    outcome = ended(ComparedTask(errors=(1.0,)), eval={"metric": "units max"})
    assert "baseline" not in outcome.best
    assert [method["metrics"] for method in outcome.baselines] == [{"error": 1.0}]


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (TinyTask(), {}),
        (ComparedTask(), {}),
        (ComparedTask(errors=(1.0,), control={"error": {"min": 0.0}}), {}),
        (ComparedTask(errors=(1.0,)), {"eval": {"every": None, "last": False}}),
    ],
    ids=["a task without", "none for this data", "noise control", "no evaluation"],
)
def test_there_are_none_where_there_is_nothing_to_compare(task, changes):
    recorder = RecordingCallback()
    outcome = ended(task, recorder, **changes)
    assert outcome.status == "completed"
    assert not outcome.baselines and "baselines" not in recorder.kinds()
    assert "baseline" not in (outcome.best or {})


def test_a_stopped_run_has_none_yet():
    recorder = RecordingCallback({2: Action.SIGNAL})
    task = ComparedTask(errors=(1.0,))
    assert ended(task, recorder).status == "stopped"
    assert not task.seen


def test_a_method_that_fails_is_a_warning_and_the_run_completes():
    class Failing(TinyTask):
        def baselines(self, train, held_out):
            raise KeyError("events")

    recorder = RecordingCallback()
    outcome = ended(Failing(), recorder)
    assert (outcome.status, outcome.baselines) == ("completed", ())
    [warning] = [facts["text"] for kind, facts in recorder.events if kind == "warning"]
    assert "KeyError" in warning


@pytest.mark.parametrize(
    ("is_below", "steps", "count"), [(True, 50, 1), (False, 50, 0), (True, 49, 0)]
)
def test_health_states_a_run_that_is_no_better_unless_it_is_a_short_trial(is_below, steps, count):
    stated = []
    health = Health(lambda name, facts: stated.append((name, facts)))
    health.start(train_plan(total_steps=steps))
    nearest = {"name": "a threshold", "metrics": {"val_iou": 0.7}}
    best = beside_baseline({"metric": "val_iou", "value": 0.6}, [nearest])
    health.event("baselines", {"best": best, "baselines": [nearest], "is_below": is_below})
    assert [name for name, _ in stated] == ["below_baseline"] * count
    for name, facts in stated:
        assert FAULTS[name].seen.format(**facts).count("0.7") == 1


@dataclass
class SlowTask(TinyTask):
    """Its baselines take longer than collectives may."""

    longer_s: float = 0.0

    def baselines(self, train, held_out):
        end = time.monotonic() + self.longer_s
        until(lambda: time.monotonic() > end)
        return [Baseline("slow", dict(error=1.0))]


def measured(world):
    """The baselines on each rank of a world whose collectives have five seconds."""
    world.close()
    again = open_world("cpu", 5.0, always_group=True)
    return evaluate.measure_baselines(SlowTask(longer_s=6.0), 0, again)


@pytest.mark.slow
def test_baselines_may_take_longer_than_collectives_may(two_ranks):
    expected = [{"name": "slow", "metrics": {"error": 1.0}}]
    assert two_ranks.run(measured) == [expected] * 2
    two_ranks.close()
