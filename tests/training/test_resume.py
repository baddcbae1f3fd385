"""A resumed run is bit-equal to an uninterrupted one."""

import pytest
import torch

from gearshift.models.base import DataError
from gearshift.training.callbacks.base import Action
from tests.training.shelf import Shelf
from tests.training.tiny import RecordingCallback, TinyTask, one_rank, run_tiny

CHANGES = {
    "train": {"epochs": 3, "ema": 0.9},
    "optim": {"lr": 0.05},
    "schedule": {"name": "cosine-restarts", "warmup": 2, "cycle": 3},
    "eval": {"every": 2},
    "save": {"every": 1, "keep_best": 2},
    "stop": {"patience": 30},
    "log": {"every": 2},
}


def history(run, after=0):
    """All numbers of the run from steps after `after` on that do not depend on the clock."""
    lines = [
        (line.step, line.epoch, line.samples, line.units, line.loss, line.grad_norm, line.lr)
        for line in run.recorder.lines
        if line.step > after
    ]
    evaluations = [
        (found.step, found.metrics, found.is_best)
        for found in run.recorder.evaluations
        if found.step > after
    ]
    return lines, evaluations


def same(first, other):
    return first.keys() == other.keys() and all(torch.equal(first[k], other[k]) for k in first)


@pytest.fixture(scope="module")
def whole():
    return run_tiny(one_rank(), TinyTask(dropout=0.5), **CHANGES)


@pytest.mark.parametrize(
    ("step", "workers"), [*((step, 0) for step in range(1, 10)), (4, 1), (4, 2)]
)
def test_a_run_resumes_bit_by_bit_from_any_step_with_any_number_of_workers(whole, step, workers):
    before, loader = whole.shelf.before(step), {"workers": workers}
    rest = run_tiny(one_rank(), TinyTask(dropout=0.5), before=before, loader=loader, **CHANGES)
    assert history(rest) == history(whole, after=step)
    assert rest.outcome.best == whole.outcome.best
    last = whole.shelf.saved[9]["pieces"]
    assert same(rest.shelf.saved[9]["pieces"] if step < 9 else last, last)
    assert same(rest.weights, whole.weights)
    untimed = {"wall_s": 0, "time_split": 0}
    for kept in (9, 8):
        if kept > step:
            ours, theirs = rest.shelf.saved[kept], whole.shelf.saved[kept]
            assert ours["score"] == theirs["score"]
            assert ours["facts"] | untimed == theirs["facts"] | untimed


def test_a_log_entry_postponed_by_a_skipped_step_is_written_after_a_resume():
    task = TinyTask(infinite_at=[3])
    changes = {"train": {"epochs": 2, "on_nonfinite": "skip 2"}, "save": {"every": 1}}
    changes["log"] = {"every": 2}
    whole = run_tiny(one_rank(), task, **changes)
    skipped = [step.step for step in whole.recorder.steps if step.skipped]
    even = next(step for step in skipped if step % 2 == 0)
    rest = run_tiny(one_rank(), task, before=whole.shelf.before(even), **changes)
    assert even + 1 in [line.step for line in rest.recorder.lines]
    assert [line.skipped for line in rest.recorder.lines] == [
        line.skipped for line in whole.recorder.lines if line.step > even
    ]


@pytest.mark.parametrize("saves", [True, False])
def test_a_signal_saves_unless_it_must_not_and_adds_no_metrics_line(saves):
    callback = RecordingCallback({3: Action.SIGNAL | Action.SAVE})
    changes = CHANGES | {"save": {"on_signal": saves}, "eval": {"every": None}}
    stopped = run_tiny(one_rank(), callback=callback, **changes)
    assert (stopped.outcome.exit_code, stopped.outcome.steps) == (75, 3)
    assert [line.step for line in callback.lines] == [1, 2]
    assert (3 in stopped.shelf.saved) == saves


def test_a_run_resumes_bit_by_bit_where_plateau_drops_the_learning_rate():
    changes = CHANGES | {"schedule": {"name": "plateau", "patience": 1}}
    changes |= {"optim": {"name": "sgd", "lr": 3.0, "clip_norm": None}}
    whole = run_tiny(one_rank(), TinyTask(), **changes)
    rates = [line.lr for line in whole.recorder.lines]
    assert rates[0] == 3.0
    assert min(rates) < 3.0
    for step in range(1, 9):
        rest = run_tiny(one_rank(), TinyTask(), before=whole.shelf.before(step), **changes)
        assert history(rest) == history(whole, after=step), step


def test_a_resume_with_exhausted_patience_ends_without_another_evaluation():
    changes = CHANGES | {"stop": {"patience": 1}, "optim": {"name": "sgd", "lr": 3.0}}
    whole = run_tiny(one_rank(), **changes)
    last = max(whole.shelf.saved)
    assert whole.outcome.steps < 9
    rest = run_tiny(one_rank(), before=whole.shelf.before(last), **changes)
    assert (rest.outcome.steps, rest.outcome.reason) == (last, whole.outcome.reason)
    assert not rest.recorder.evaluations


def test_a_replay_ends_at_its_step_and_saves_there(whole):
    task = TinyTask(dropout=0.5)
    rest = run_tiny(one_rank(), task, before=whole.shelf.before(4), until=7, **CHANGES)
    assert (rest.outcome.steps, rest.outcome.exit_code) == (7, 0)
    assert history(rest) == tuple(
        [row for row in rows if row[0] <= 7] for rows in history(whole, after=4)
    )
    assert same(rest.shelf.saved[7]["pieces"], whole.shelf.saved[7]["pieces"])


def test_other_data_is_refused_by_name():
    shelf = Shelf()
    files = {"data.path/a": "1", "data.path/b": "2"}
    known = {"samples": 100, "fingerprint": "aa", "validation": "vv", "files": files}
    facts = {"data": known, "samples": 24}
    shelf.saved[3] = {"facts": facts, "pieces": {}, "steps": {}, "loss_scale": {}}
    shelf.before(3).check_data(known)
    shelf.before(3).check_data({"samples": 100, "fingerprint": "aa"})  # of an older version
    shelf.before(3).check_data({**known, "files": None})
    changed = {"data.path/b": "3", "data.path/c": "4"}
    for change, text in (
        ({"samples": 120}, "120 training samples instead of 100"),
        ({"fingerprint": "bb"}, "training samples"),
        ({"validation": "ww"}, "validation samples"),
        ({"files": changed, "samples": 1}, "/a, .*/b, .*/c"),
    ):
        with pytest.raises(DataError, match=text) as raised:
            shelf.before(3).check_data(known | change)
        assert raised.value.where == "data.path"
    shelf.before(3, reset=frozenset({"data"})).check_data({"samples": 1, "fingerprint": "cc"})
