import pytest

from tests.training.tiny import one_rank, run_tiny

COUNTS = {"samples": 7, "split_samples": 7}


@pytest.fixture(scope="module")
def rising():
    """A run whose error gets worse after the first evaluations: the learning rate is absurd."""
    changes = {"optim": {"name": "sgd", "lr": 3.0, "clip_norm": None}, "save": {"every": 5}}
    changes |= {"train": {"epochs": 4}, "eval": {"every": 2}, "schedule": {"name": "linear"}}
    return run_tiny(one_rank(), **changes)


def test_the_best_is_saved_when_it_is_found_and_the_last_at_the_end(rising):
    found = {e.step: e.metrics["error"] for e in rising.recorder.evaluations}
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
