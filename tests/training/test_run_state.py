import pytest

from tests.training.tiny import one_rank, run_tiny

COUNTS = {"samples": 7, "split_samples": 7}


def errors(run):
    return {e.step: e.metrics["error"] for e in run.recorder.evaluations}


@pytest.fixture(scope="module")
def rising():
    """A run whose error gets worse after the first evaluations: the learning rate is absurd."""
    changes = {"optim": {"name": "sgd", "lr": 3.0, "clip_norm": None}, "save": {"every": 5}}
    changes |= {"train": {"epochs": 4}, "eval": {"every": 2}, "schedule": {"name": "linear"}}
    return run_tiny(one_rank(), **changes)


def test_the_best_is_saved_when_it_is_found_and_the_last_at_the_end(rising):
    found = errors(rising)
    best_so_far = [s for s in found if found[s] == min(found[t] for t in found if t <= s)]
    assert 12 not in best_so_far
    assert list(rising.shelf.saved) == sorted({*best_so_far, 5, 10, 12})
    marked = [step for step, kept in rising.shelf.saved.items() if kept["score"]]
    assert marked == best_so_far
    assert [e.step for e in rising.recorder.evaluations if e.is_best] == best_so_far
    best = {"value": min(found.values()), "step": min(found, key=found.get)}
    assert rising.outcome.best == {"metric": "error", "direction": "min", **best, **COUNTS}


def test_a_best_at_a_periodic_step_is_saved_once_as_both():
    run = run_tiny(one_rank(), eval={"every": 1}, save={"every": 1})
    assert run.recorder.saved_steps == [1, 2, 3]
    assert all(kept["periodic"] for kept in run.shelf.saved.values())
    assert run.shelf.saved[1]["score"].value == run.recorder.evaluations[0].metrics["error"]


def test_checkpoint_facts_have_the_position_of_the_run(rising):
    facts = rising.shelf.saved[5]["facts"]
    units = sum(step.units for step in rising.recorder.steps[:5])
    assert (facts["step"], facts["epoch"], facts["evaluated_at"]) == (5, 5 / 3, 4)
    assert (facts["samples"], facts["position"], facts["units"]) == (40, 40, units)
    assert facts["metrics"] == {"units": units, "is_log_due": False, "skipped": 0}
    assert facts["starts"] == {"data": 0, "schedule": 0, "samples_before": 0}


def test_the_end_is_evaluated_once_also_between_two_intervals():
    run = run_tiny(one_rank(), train={"max_steps": 3}, eval={"every": 2})
    assert list(errors(run)) == [2, 3]
    run = run_tiny(one_rank(), train={"epochs": 1}, eval={"every": "1 epoch"})
    assert list(errors(run)) == [3]
    changes = {"eval": {"every": 2, "last": False}, "save": {"keep_best": 0, "last": False}}
    run = run_tiny(one_rank(), train={"max_steps": 3}, **changes)  # unless disabled, as saving is
    assert (list(errors(run)), run.shelf.saved) == ([2], {})


def test_each_epoch_ends_with_an_evaluation_if_enabled():
    for every, expected in ((4, [3, 4, 6, 8, 9]), (None, [3, 6, 9])):
        evaluated = {"every": every, "each_epoch": True}
        assert list(errors(run_tiny(one_rank(), train={"epochs": 3}, eval=evaluated))) == expected


def events(run, wanted):
    return [facts for kind, facts in run.recorder.events if kind == wanted]


def test_a_preview_is_shown_before_and_after_in_evaluation_mode():
    found = [(facts["when"], facts["text"]) for facts in events(run_tiny(one_rank()), "preview")]
    assert found == [("before", "training: False"), ("after", "training: False")]
    assert not events(run_tiny(one_rank(), train={"preview": False}), "preview")
