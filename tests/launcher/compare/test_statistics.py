"""Intervals and judgements, by simulated studies with a known truth."""

import math

import numpy as np
import pytest
from scipy import stats

from launcher.compare.statistics import Estimate, estimate, further_seeds, judge, margins

STUDIES = 4000


def claims(differences, share=0.0):
    """The share of studies, one a row, whose difference is larger than the noise."""
    return np.mean([estimate(list(row), share).is_larger_than_noise for row in differences])


def correlated(generator, folds, mean=0.0):
    """Studies of `folds` normal values of variance 1, each pair with correlation 1 / folds."""
    shared = generator.standard_normal((STUDIES, 1)) / math.sqrt(folds)
    apart = generator.standard_normal((STUDIES, folds)) * math.sqrt(1 - 1 / folds)
    return mean + shared + apart


@pytest.fixture
def generator():
    return np.random.default_rng(37)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_equal_candidates_differ_in_one_of_twenty_studies(generator, count):
    # 4000 studies: the standard error of the share is 0.0034.
    assert 0.04 < claims(generator.standard_normal((STUDIES, count))) < 0.06
    assert 0.04 < claims(correlated(generator, count), 1 / count) < 0.06


def test_the_plain_test_claims_too_much_about_folds(generator):
    limit = stats.t.ppf(0.975, 4) / math.sqrt((1 / 5 + 1 / 4) / (1 / 5))
    assert claims(correlated(generator, 5)) == pytest.approx(2 * stats.t.sf(limit, 4), abs=0.017)


@pytest.mark.parametrize("count", [3, 5, 10])
def test_two_standard_errors_are_found_as_often_as_the_noncentral_t_says(generator, count):
    limit = stats.t.ppf(0.975, count - 1)
    power = 1 - stats.nct.cdf(limit, count - 1, 2) + stats.nct.cdf(-limit, count - 1, 2)
    seeds = 2 / math.sqrt(count) + generator.standard_normal((STUDIES, count))
    assert claims(seeds) == pytest.approx(power, abs=0.025)  # three standard errors of a share
    error = math.sqrt(1 / count + (count - 1) / count / count)  # of the mean of correlated values
    folds = correlated(generator, count, 2 * error)
    assert claims(folds, 1 / count) == pytest.approx(power, abs=0.025)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 11, 100, 129])
def test_an_interval_is_that_of_scipy(count):
    values = list(np.random.default_rng(count).standard_normal(count))
    error = stats.sem(values)
    expected = stats.t.interval(0.95, count - 1, np.mean(values), error)
    assert estimate(values).interval == pytest.approx(expected, abs=1e-12 * error)


def test_folds_widen_the_interval():
    values = [0.61, 0.58, 0.66, 0.6]
    found = estimate(values)
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.interval == pytest.approx(expected)
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    wide = estimate(values, 0.25).interval
    ratio = math.sqrt((1 / 4 + 1 / 3) / (1 / 4))
    assert wide[1] - found.mean == pytest.approx(ratio * (expected[1] - found.mean))
    assert estimate([0.5]) == Estimate(1, 0.5, None, None)


def test_a_promise_is_kept_broken_or_not_decided_by_its_interval():
    base = [0.60, 0.62, 0.58, 0.61]
    for factor, less, kept in (
        (1.0, False, True),
        (0.9, False, False),
        (0.95, True, True),  # the ratio is inverted: 1 / 0.95
        (1.1, True, False),
    ):
        row = [
            value * factor + extra for value, extra in zip(base, (1e-3, 0, 2e-3, 0), strict=True)
        ]
        (amounts,) = margins({"at_least": 0.98}, row, base, less=less)
        assert judge([[amount] for amount in amounts]) is kept, (factor, less)
    (amounts,) = margins({"at_least": 0.98}, [0.5, 0.7, 0.6, 0.6], base, less=False)
    assert judge([[amount] for amount in amounts]) is None
    assert judge([[0.0], [0.0]]) is True  # equal runs, "at least 1"
    assert judge([[1.0]]) is None  # one seed has no interval
    both = {"at_least": 0.5, "at_most": 0.9}
    assert margins(both, [0.6], [1.0], less=False) == [[pytest.approx(0.1)], [pytest.approx(0.3)]]


def test_the_proposed_seeds_are_the_fewest_that_would_decide():
    values = [0.03, -0.01, 0.02, 0.0]
    further = further_seeds([[value] for value in values])
    mean, deviation = np.mean(values), np.std(values, ddof=1)

    def half(count):
        return stats.t.ppf(0.975, count - 1) * deviation / math.sqrt(count)

    assert half(4 + further) < mean <= half(4 + further - 1)
    assert further_seeds([[1e-6], [1.0], [-1.0]]) is None  # more than a hundred
    assert further_seeds([[1.0]]) is None


def test_seeds_reduce_only_their_own_part_of_the_variance_of_folds():
    same_seeds = [[0.1, 0.1], [-0.06, -0.06], [0.05, 0.05]]  # all of it is between folds
    assert further_seeds(same_seeds, 1 / 3) is None
    noisy_seeds = [[0.5, -0.4], [0.4, -0.3], [0.7, -0.5]]
    means = [np.mean(fold) for fold in noisy_seeds]
    further = further_seeds(noisy_seeds, 1 / 3)
    for seeds, is_enough in ((2 + further, True), (1 + further, False)):
        spread = np.var(means, ddof=1) * 2 / seeds  # seeds alone explain more than all of it
        half = stats.t.ppf(0.975, 2) * math.sqrt((1 / 3 + 1 / 2) * spread)
        assert (half < np.mean(means)) is np.bool_(is_enough)
