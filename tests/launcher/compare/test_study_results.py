"""The figures of a study from run folders: means over folds, differences, promises."""

import json

import pytest

from launcher.compare import statistics
from launcher.compare.promises import PromiseResult
from launcher.compare.study import Study
from launcher.compare.study_results import against, figures, judged
from launcher.run_folder import run_folder
from tests.launcher.compare.runs_on_disk import run

STUDY = Study(3, False, 2, split_seed=0, seed=0, eval_share=0.1)
SEEDS = Study(None, False, 4, split_seed=0, seed=0, eval_share=0.1)
BASE = {"fold1": (2.0, 2.2), "fold2": (2.1, 2.2), "fold3": (2.2, 2.2)}
PROMISE = PromiseResult("metric", {"at_least": 0.98}, 1.0, True)


@pytest.fixture
def made(tmp_path):
    """The figures of a candidate with these losses by round; None: an evaluation without one."""

    def make(losses, study=STUDY, failed=(), groups="abc"):
        folders = {}
        for name, loss in losses.items():
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{name}"
            run(folder, [1.0] * 3, evaluations={2: (9.0, 1.0), 3: (loss or 9.0, 1.0)})
            (folder / "split.json").write_text(json.dumps({"val": list(groups)}))
            if loss is None:
                without_value(folder)
            folders[name] = folder
        return figures(study, folders, dict(failed))

    return make


def without_value(folder):
    """Let the evaluations have a loss that is no number, as of a fold with one class."""
    events = folder / run_folder.EVENTS
    events.write_text(events.read_text().replace('"val_loss": 9.0', '"val_loss": "NaN"'))
    result = json.loads((folder / run_folder.RESULT).read_text())
    (folder / run_folder.RESULT).write_text(json.dumps({**result, "best": None}))


def of_folds(scale=1.0, **changed):
    losses = {
        f"{fold}-seed{n}": loss * scale
        for fold, pair in BASE.items()
        for n, loss in zip((1, 2), pair, strict=True)
    }
    return {**losses, **changed}


def of_seeds(*losses):
    return {f"seed{number}": loss for number, loss in enumerate(losses, start=1)}


def test_a_mean_is_over_folds_each_the_mean_of_its_seeds(made):
    found = made(of_folds())
    assert (found.metric, found.less_is_better, found.is_partial) == ("val_loss", True, False)
    expected = statistics.estimate([2.1, 2.15, 2.2], 1 / 3)
    assert found.goal.estimate.interval == pytest.approx(expected.interval)
    row = against(STUDY, "fast local", made(of_folds(1.1)), "default local", found)
    expected = statistics.estimate([0.21, 0.215, 0.22], 1 / 3)
    assert row.differences["val_loss"].interval == pytest.approx(expected.interval)
    low, high = expected.interval
    assert row.sentence == (
        "val_loss of fast local is 0.2150 higher than of default local: larger than the noise "
        f"({low:.4f} to {high:.4f}, 95% interval over 3 folds)"
    )
    same = against(STUDY, "a", made(of_folds(**{"fold2-seed1": 2.4})), "b", found)
    assert "0.0500 higher than of b: not larger than the noise" in same.sentence
    alone = {"fold1-seed1": 2.0}
    one = against(STUDY, "a", made(alone), "b", made(alone))
    assert one.sentence.endswith("one fold does not show the noise")


def test_a_fold_without_a_value_and_a_failed_run_are_named(made):
    base = made(of_folds())
    row = made(of_folds(**{"fold2-seed1": None}))
    assert row.goal.lacking == ["fold2-seed1"] and row.is_partial
    assert list(row.notes("fast")) == [
        "† fast: no val_loss of fold2-seed1",
        "† fast: 5 of 6 runs",
    ]
    item = judged(STUDY, PROMISE, row, base)
    assert (item.measured, item.kept) == (None, None)
    assert item.why == "val_loss has no value on fold 2 seed 1"
    losses = of_folds()
    del losses["fold3-seed2"]
    row = made(losses, failed={"fold3-seed2": "no memory"})
    assert "† fast fold3-seed2 failed: no memory" in row.notes("fast")
    assert judged(STUDY, PROMISE, row, base).why == "the run of fold 3 seed 2 failed"
    assert made({"fold1-seed1": None}).goal.estimate is None


def test_runs_that_wait_leave_the_pairs_there_are(made):
    losses = of_folds(1.5)
    del losses["fold1-seed2"]
    row = against(STUDY, "fast", made(losses), "default", made(of_folds()))
    assert row.differences["val_loss"].mean == pytest.approx((1.0 + 1.075 + 1.1) / 3)
    assert judged(STUDY, PROMISE, row, made(of_folds())).kept is False


def test_a_promise_of_quality_is_judged_by_its_interval(made):
    base = made(of_folds())
    for scale, kept in ((1.0, True), (0.9, True), (1.2, False)):
        item = judged(STUDY, PROMISE, made(of_folds(scale)), base)
        assert item.kept is kept, scale
        assert item.measured == pytest.approx(1 / scale)  # inverted: less is better
        assert item.why is None
    time = PromiseResult("total_time", {"at_most": 0.5}, 0.7, False)
    assert judged(STUDY, time, base, base) is time


def test_an_undecided_promise_tells_how_many_seeds_would_decide_it(made):
    base = made(of_seeds(2.0, 2.1, 1.9, 2.0), SEEDS)
    row = made(of_seeds(2.0, 2.0, 2.1, 1.8), SEEDS)
    item = judged(SEEDS, PROMISE, row, base)
    amounts = statistics.margins(
        PROMISE.promised, [2.0, 2.0, 2.1, 1.8], [2.0, 2.1, 1.9, 2.0], less=True
    )
    further = statistics.further_seeds([[amount] for amount in amounts[0]])
    assert (item.kept, item.why) == (None, f"not decided: {further} more seeds")
    one = of_seeds(2.0)
    item = judged(SEEDS, PROMISE, made(one, SEEDS), made(one, SEEDS))
    assert item.why == "not decided: one run has no interval; use --seeds 3"


def test_candidates_that_validate_on_other_groups_are_not_judged(made):
    base, row = made(of_folds()), made(of_folds(), groups="abd")
    assert "different groups" in judged(STUDY, PROMISE, row, base).why
    assert against(STUDY, "a", row, "b", base).sentence.endswith("different groups of the data")
