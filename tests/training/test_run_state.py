from dataclasses import replace

import pytest

from tests.training.tiny import one_rank, run_tiny

CHANGES = {
    "train": {"epochs": 4},
    "log": {"every": 1},
    "eval": {"every": 2},
    "optim": {"name": "sgd", "lr": 3.0, "clip_norm": None},
    "save": {"every": 5},
    "schedule": {"name": "linear"},
}
COUNTS = {"samples": 7, "split_samples": 7}


@pytest.fixture(scope="module")
def rising():
    """A run whose error gets worse after the first evaluations: the learning rate is absurd."""
    return run_tiny(one_rank(), **CHANGES)


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
    assert (facts["samples"], facts["units"]) == (40, units)
    counts = {"units": units, "labelled": units}
    assert facts["metrics"] == {**counts, "is_log_due": False, "skipped": 0}
    assert facts["starts"] == {"data": 0, "schedule": 0, "samples_before": 0}


def test_an_evaluation_that_is_owed_comes_before_the_next_step(rising):
    before = rising.shelf.before(5)
    owing = replace(before.checkpoint, facts={**before.checkpoint.facts, "owes_evaluation": True})
    rest = run_tiny(one_rank(), before=replace(before, checkpoint=owing), **CHANGES)
    assert rest.recorder.calls[:3] == ["start", "evaluated 5", "step 6"]
    rest = run_tiny(one_rank(), before=before, **CHANGES)
    assert rest.recorder.calls[:2] == ["start", "step 6"]


def test_an_evaluation_that_is_not_due_does_not_count_for_patience():
    changes = {
        "train": {"epochs": 4, "max_steps": 7},
        "save": {"every": 1},
        "stop": {"patience": 9},
    }
    run = run_tiny(one_rank(), **CHANGES | changes)
    assert [e.step for e in run.recorder.evaluations] == [2, 4, 6, 7]
    waited = {step: kept["facts"]["evaluator"]["waited"] for step, kept in run.shelf.saved.items()}
    assert waited[6] == waited[7] > 0


def test_after_a_reset_of_the_data_earlier_scores_do_not_count(rising):
    """Steps, epochs and samples count on; the order of the data and the best begin again."""
    best = rising.outcome.best["step"]
    assert best < 10
    before = rising.shelf.before(10, reset=frozenset({"data"}))
    rest = run_tiny(one_rank(), before=before, **CHANGES)
    assert rest.outcome.best["step"] > 10
    line = next(line for line in rest.recorder.lines if line.step == 11)
    assert (line.epoch, line.samples) == (1 / 3, 88)
