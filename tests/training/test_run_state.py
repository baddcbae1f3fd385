from dataclasses import replace

import pytest

from gearshift.training.callbacks.base import Action
from tests.training.odd_ranks import Odd, by_clock, odd_run
from tests.training.tiny import TinyTask, one_rank, run_tiny

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


EACH_STEP = {
    "train": {"epochs": 2},
    "eval": {"every": 3},
    "log": {"every": 1},
    "save": {"every": 4},
}
REQUESTS = [
    Action.EVALUATE,
    Action.SAVE,
    Action.EVALUATE | Action.SAVE,
    Action.STOP,
    Action.STOP | Action.SIGNAL | Action.SAVE,
    Action.INTERRUPT | Action.SAVE,
    Action.LIMIT_EXCEEDED | Action.SAVE,
    Action.FREE_MEMORY | Action.SMALLER_BATCH,
    Action.FEWER_WORKERS,
]
TEXTS = ("calls", "end", "saved", "owes", "skipped", "labelled")
NUMBERS = ("losses", "norms", "weights", "evaluated")


def assert_same(run, expected):
    for name in TEXTS:
        assert run[name] == expected[name], name
    for name in NUMBERS:
        assert len(run[name]) == len(expected[name]), name
        for value, other in zip(run[name], expected[name], strict=True):
            assert value == pytest.approx(other, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("odd_rank", [0, 1])
@pytest.mark.parametrize("action", REQUESTS, ids=str)
@pytest.mark.parametrize("step", [2, 4])
def test_ranks_act_on_a_request_of_one_as_one_process_a_step_later(
    two_ranks, odd_rank, action, step
):
    alone = odd_run(one_rank(), Odd({step + 1: action}), 0, EACH_STEP)
    for run in two_ranks.run(odd_run, Odd({step: action}), odd_rank, EACH_STEP):
        assert_same(run, alone)


@pytest.mark.parametrize("odd_rank", [0, 1])
def test_ranks_end_by_what_one_requests_after_an_evaluation(two_ranks, odd_rank):
    alone = odd_run(one_rank(), Odd({4: Action.STOP}), 0, EACH_STEP)
    odd = Odd(at_evaluation=Action.STOP)
    for run in two_ranks.run(odd_run, odd, odd_rank, EACH_STEP):
        assert_same(run, alone)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
@pytest.mark.parametrize("looks", range(1, 6))
def test_a_signal_at_one_rank_ends_an_evaluation_of_both_which_is_owed(two_ranks, looks, engine):
    """Before a batch, in a forward pass or after the last one; fsdp gathers weights in each."""
    changes = EACH_STEP | {"engine": engine}
    for run in two_ranks.run(odd_run, Odd(looks=looks), looks // 2 % 2, changes):
        assert run["end"][0] == "stopped" and run["end"][2:] == (75, 3)
        assert (run["evaluated"], run["owes"]) == ([], {3: True})


def test_ranks_first_take_the_evaluation_that_they_owe_and_go_on_as_one_process(two_ranks):
    whole = odd_run(one_rank(), Odd(), 0, EACH_STEP)
    ranks = two_ranks.run(odd_run, Odd(looks=2), 1, EACH_STEP)
    shelves = [run["shelf"] for run in ranks]
    rests = two_ranks.run(odd_run, Odd(), 0, EACH_STEP, None, shelves)
    for run, rest in zip(ranks, rests, strict=True):
        assert rest["calls"][1:4] == ["evaluated 3", "saved 3", "step 4"]
        assert run["losses"] + rest["losses"] == pytest.approx(whole["losses"], rel=1e-9)
        assert rest["weights"] == pytest.approx(whole["weights"], rel=1e-9)
        assert rest["evaluated"][0] == pytest.approx(whole["evaluated"][0], rel=1e-9)


def test_ranks_take_note_of_a_checkpoint_together_where_one_writes_it_slowly(two_ranks):
    changes = EACH_STEP | {"save": {"every": 1, "async": True}}
    alone = odd_run(one_rank(), Odd(), 0, changes)
    for odd_rank in (0, 1):
        first, second = two_ranks.run(odd_run, Odd(writes_slowly=True), odd_rank, changes)
        assert first["calls"] == second["calls"]
        for run in (first, second):
            assert_same(run | {"calls": alone["calls"]}, alone)


def test_a_rank_without_units_trains_as_one_process(two_ranks):
    """Of single samples every fourth has no units; where both ranks have none, they skip."""
    changes = EACH_STEP | {"global_batch": 2, "micro_batch": 1, "train": {"epochs": 4}}
    task = TinyTask(train=9)
    alone = odd_run(one_rank(), Odd(), 0, changes, task)
    assert alone["skipped"]
    for run in two_ranks.run(odd_run, Odd(), 0, changes, task):
        assert_same(run, alone)


def test_the_clock_of_rank_0_decides_however_fast_that_of_another_goes(two_ranks):
    changes = {"time_s": 0.5, "train": {"epochs": None}, "eval": {"every": 20}}
    changes |= {"save": {"every": 10}, "log": {"every": 10}}
    expected = two_ranks.run(by_clock, (1e-3, 1e-3), changes)[0]
    assert len(expected) > 2
    assert two_ranks.run(by_clock, (1e-3, 1e-2), changes) == [expected] * 2
