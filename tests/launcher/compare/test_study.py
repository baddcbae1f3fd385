"""Studies from run folders: means over folds with intervals, paired differences, promises."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from gearshift.launcher.compare.rows import ComparisonRow, figures, read
from gearshift.launcher.compare.study import Estimate, Study, decide, estimate
from gearshift.launcher.run_folder import run_folder
from tests.launcher.compare.runs_on_disk import run

STUDIES = 4000
FOLDS = Study({f"fold{fold}-seed{seed}": () for seed in (1, 2) for fold in (1, 2, 3)}, 3, 2)
BASE = {"fold1": (2.0, 2.2), "fold2": (2.1, 2.2), "fold3": (2.2, 2.2)}
PROMISE = {"at_least": 0.98}


def claims(differences, share=0.0):
    """The part of the studies, one a row, whose difference is larger than the noise."""
    return np.mean([estimate(list(row), share).is_larger_than_noise for row in differences])


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_equal_candidates_differ_in_one_of_twenty_studies(count):
    generator = np.random.default_rng(37)
    values = generator.standard_normal((STUDIES, count))
    # The standard error of the part is 0.0034.
    assert 0.04 < claims(values) < 0.06
    # Each pair of folds has correlation 1 / count.
    shared = generator.standard_normal((STUDIES, 1)) / math.sqrt(count)
    assert 0.04 < claims(shared + values * math.sqrt(1 - 1 / count), 1 / count) < 0.06


def test_an_interval_is_that_of_student_and_wider_for_folds():
    values = [0.61, 0.58, 0.66, 0.6]
    found = estimate(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.interval == pytest.approx(expected)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    wide = estimate(values, 0.25).interval
    ratio = math.sqrt((1 / 4 + 1 / 3) / (1 / 4))
    assert wide[1] - found.mean == pytest.approx(ratio * (expected[1] - found.mean))
    assert estimate([0.5]) == Estimate(1, 0.5, None, None)
    assert estimate([0.5, 0.5]) == Estimate(2, 0.5, 0.0, (0.5, 0.5))


@pytest.fixture
def made(tmp_path):
    """The figures of a candidate with these losses by round; None: an evaluation without one."""

    def make(losses, study=FOLDS, failed=(), groups="abc", base=None):
        runs = {}
        for name, loss in losses.items():
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}-{name}"
            run(folder, [1.0] * 3, evaluations={2: (9.0, 1.0), 3: (loss or 9.0, 1.0)})
            (folder / "split.json").write_text(json.dumps({"val": list(groups)}))
            if loss is None:  # as of a fold with one class
                events = folder / run_folder.EVENTS
                text = events.read_text().replace('"val_loss": 9.0', '"val_loss": "NaN"')
                events.write_text(text)
                result = json.loads((folder / run_folder.RESULT).read_text())
                (folder / run_folder.RESULT).write_text(json.dumps({**result, "best": None}))
            runs[name] = (folder, read(folder))
        reference = base and ComparisonRow("m", "default", "local", study=base)
        return figures(study, runs, dict(failed), reference)

    return make


def of_folds(scale=1.0, **changed):
    losses = {
        f"{fold}-seed{n}": loss * scale
        for fold, pair in BASE.items()
        for n, loss in zip((1, 2), pair, strict=True)
    }
    return {**losses, **changed}


def test_a_mean_is_over_folds_each_the_mean_of_its_seeds_and_differences_are_paired(made):
    found = made(of_folds())
    assert (found.metric, found.less_is_better, found.is_partial) == ("val_loss", True, False)
    expected = estimate([2.1, 2.15, 2.2], 1 / 3)
    assert found.estimate.interval == pytest.approx(expected.interval)
    row = made(of_folds(1.1), base=found)
    gap = row.difference
    assert gap.interval == pytest.approx(estimate([0.21, 0.215, 0.22], 1 / 3).interval)
    assert (row.reference, gap.is_larger_than_noise) == ("default local", True)
    same = made(of_folds(**{"fold2-seed1": 2.4}), base=found)
    assert not same.difference.is_larger_than_noise
    losses = of_folds(1.5)
    del losses["fold1-seed2"]  # the pairs there are
    row = made(losses, base=found)
    assert row.difference.mean == pytest.approx((1.0 + 1.075 + 1.1) / 3)


def test_a_fold_without_a_value_and_a_failed_run_are_named_and_judge_nothing(made):
    base = made(of_folds())
    row = made(of_folds(**{"fold2-seed1": None}))
    assert row.is_partial and decide(FOLDS, PROMISE, row, base)[:2] == (None, None)
    losses = of_folds()
    del losses["fold3-seed2"]
    row = made(losses, failed={"fold3-seed2": "no memory"})
    _, kept, why = decide(FOLDS, PROMISE, row, base)
    assert kept is None and "fold3-seed2" in why
    assert made({"fold1-seed1": None}).estimate is None
    other = decide(FOLDS, PROMISE, made(of_folds(), groups="abd"), base)
    assert other[:2] == (None, None)  # other groups validate


def test_a_promise_of_quality_is_judged_by_its_interval(made):
    base = made(of_folds())
    for scale, kept in ((1.0, True), (0.9, True), (1.2, False)):
        measured, *found = decide(FOLDS, PROMISE, made(of_folds(scale)), base)
        assert found == [kept, None], scale
        assert measured == pytest.approx(1 / scale)  # inverted: less is better
    for bounds, kept in (
        ({"at_least": 1}, True),  # equal runs
        ({"at_least": 0.9, "at_most": 0.99}, False),
        ({"at_most": 1.01, "at_least": None}, True),
    ):
        assert decide(FOLDS, bounds, base, base)[1] is kept
