import gc
import multiprocessing

import pytest

from gearshift.models.base import DataError
from gearshift.training.callbacks.base import Action
from tests.training.ranks import tiny_run
from tests.training.tiny import RecordingCallback, TinyTask, one_rank, run_tiny

EACH_STEP = {"train": {"epochs": 2}, "eval": {"every": None}, "log": {"every": 1}}


def test_a_step_is_reported_then_evaluated_then_saved():
    run = run_tiny(one_rank(), train={"epochs": 2}, eval={"every": 2}, save={"every": 3})
    assert run.recorder.calls == [
        "start",
        *("step 1", "step 2", "evaluated 2", "saved 2"),
        *("step 3", "saved 3"),
        *("step 4", "evaluated 4", "saved 4"),
        *("step 5", "step 6", "evaluated 6", "saved 6"),
        "end",
    ]


def test_what_exists_before_the_first_step_is_searched_for_garbage_after_the_last_one_only():
    class Counting(RecordingCallback):
        frozen = ()

        def step(self, step):
            self.frozen += (gc.get_freeze_count(),)
            return super().step(step)

    run = run_tiny(one_rank(), callback=Counting(), **EACH_STEP)
    assert min(run.recorder.frozen) > 0
    assert gc.get_freeze_count() == 0


ENDS = [
    (Action.STOP, "completed", 0),
    (Action.SIGNAL | Action.SAVE, "stopped", 75),
    (Action.LIMIT_EXCEEDED | Action.SAVE, "stopped", 75),
    (Action.INTERRUPT, "stopped", 130),
    (Action.SIGNAL | Action.INTERRUPT, "stopped", 130),
    (Action.STOP | Action.SIGNAL | Action.SAVE, "stopped", 75),
]


@pytest.mark.parametrize(("action", "status", "code"), ENDS)
def test_a_request_to_end_ends_the_run_before_the_next_step(action, status, code):
    run = run_tiny(one_rank(), callback=RecordingCallback({2: action}), **EACH_STEP)
    assert run.outcome.steps == 2
    assert (run.outcome.status, run.outcome.exit_code) == (status, code)
    assert list(run.shelf.saved) == [2]
    # An interrupted run does not evaluate.
    assert len(run.recorder.evaluations) == (1 if status == "completed" else 0)
    assert run.recorder.outcomes == [run.outcome]


@pytest.mark.parametrize(("action", "status", "code"), ENDS[:4])
def test_a_request_of_one_rank_ends_both_a_step_later(two_ranks, action, status, code):
    for found in two_ranks.run(tiny_run, {}, {1: {2: action}}, EACH_STEP):
        outcome = found["outcome"]
        assert (outcome.steps, outcome.status, outcome.exit_code) == (3, status, code)
        assert list(found["saved"]) == [3]
        assert found["calls"][-1] == "end"


def test_other_requests_of_one_rank_are_carried_out_by_both(two_ranks):
    requests = {0: {1: Action.FREE_MEMORY}, 1: {2: Action.EVALUATE | Action.SAVE}}
    for found in two_ranks.run(tiny_run, {}, requests, EACH_STEP):
        assert found["calls"][1:7] == [
            *("step 1", "step 2", "throttled"),
            *("step 3", "evaluated 3", "saved 3"),
        ]
        assert found["outcome"].status == "completed"


def test_what_one_rank_requests_before_the_last_step_is_carried_out_once_after_it(two_ranks):
    """The end of the run evaluates too, but not twice."""
    requests = {1: {5: Action.EVALUATE | Action.SAVE}}
    changes = EACH_STEP | {"save": {"last": False, "keep_best": 0}}
    for found in two_ranks.run(tiny_run, {}, requests, changes):
        assert found["calls"][-4:] == ["step 6", "evaluated 6", "saved 6", "end"]


def test_news_of_a_finished_write_do_not_make_ranks_wait_for_a_later_one(two_ranks):
    changes = EACH_STEP | {"save": {"every": 1, "async": True}}
    for found in two_ranks.run(tiny_run, {}, {}, changes):
        assert found["calls"][1:6] == ["step 1", "step 2", "saved 1", "step 3", "saved 2"]


@pytest.mark.parametrize("sample", [4, 5])
def test_a_loss_that_one_rank_finds_infinite_ends_both_with_one_reason(two_ranks, sample):
    task = {"infinite_at": [sample]}
    first, second = two_ranks.run(tiny_run, task, {}, EACH_STEP)
    assert first["outcome"].reason == second["outcome"].reason
    assert first["outcome"].status == second["outcome"].status == "failed"
    assert first["saved"] == second["saved"] == {}
    assert "loss inf" in first["outcome"].reason or sample % 4 == 0
    alone = run_tiny(one_rank(), TinyTask(**task), **EACH_STEP)
    steps = [o.reason.partition(" at ")[2] for o in (first["outcome"], alone.outcome)]
    assert steps[0] == steps[1]  # that of the fault, though found a step later


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_passes_through_after_callbacks_ended(workers):
    before = set(multiprocessing.active_children())
    callback = RecordingCallback()
    with pytest.raises(DataError, match="row 9 cannot be read"):
        run_tiny(one_rank(), TinyTask(bad=9), callback, loader={"workers": workers}, **EACH_STEP)
    (outcome,) = callback.outcomes
    assert (outcome.status, outcome.exit_code) == ("failed", 1)
    assert outcome.reason == "DataError: row 9 cannot be read"
    assert callback.calls[-1] == "end"
    assert set(multiprocessing.active_children()) <= before
