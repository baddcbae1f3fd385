"""Samples, their randomness, and replayed old samples."""

from itertools import pairwise

import pytest

from gearshift.training.data.samples import ReplayMixture, SampleDraws, Samples
from tests.training.tiny import TinyTask


def rows(samples, epoch, indices):
    return samples[epoch, indices].batch["x"].tolist()


def test_a_sample_is_independent_of_its_batch_and_changes_with_the_epoch():
    task = TinyTask()
    samples = Samples(task, task.data("train"), seed=4)
    together, alone = rows(samples, 1, [3, 5]), rows(samples, 1, [5])
    assert together[1] == alone[0]
    assert rows(samples, 2, [5]) != alone
    assert rows(Samples(task, task.data("train"), seed=5), 1, [5]) != alone


class Numbers:
    """A split whose samples are their source and the first number of their draws."""

    def __init__(self, name, length):
        self.name, self._length = name, length

    def __len__(self):
        return self._length

    def sample(self, index, draws):
        return self.name, index, float(draws.rng().random())


def epoch(mixture, number):
    return [mixture.sample(i, SampleDraws(number + 1, i)) for i in range(len(mixture))]


@pytest.mark.parametrize(
    ("share", "count"), [(0.0, 0), (0.5, 10), (0.25, 3), (0.9, 90), (0.99, 300)]
)
def test_the_share_is_of_all_samples_and_no_more_than_there_are(share, count):
    mixture = ReplayMixture(Numbers("new", 10), [Numbers("old", 300)], share)
    assert mixture.replayed == count


def test_all_new_samples_come_first_and_once():
    mixture = ReplayMixture(Numbers("new", 6), [Numbers("old", 50)], 0.5)
    found = epoch(mixture, 0)
    assert [(name, index) for name, index, _ in found[:6]] == [("new", i) for i in range(6)]
    assert len(found) == 12 and {name for name, _, _ in found[6:]} == {"old"}


def test_no_old_sample_comes_twice_in_an_epoch_and_epochs_differ():
    mixture = ReplayMixture(
        Numbers("new", 20), [Numbers("a", 13), Numbers("b", 1), Numbers("c", 20)], 0.5
    )
    assert epoch(mixture, 3) == epoch(mixture, 3)
    seen = []
    for number in range(30):
        old = [(name, index) for name, index, _ in epoch(mixture, number)[20:]]
        assert len(set(old)) == len(old) == 20
        seen.append(tuple(old))
    assert len(set(seen)) == 30
    assert len({sample for old in seen for sample in old}) == 34  # each one occurs at some time


@pytest.mark.parametrize(("length", "limit"), [(100, 7), (13, 12), (5, 5)])
def test_spread_samples_are_one_of_each_part_at_any_place_in_it(length, limit):
    splits = [Samples(TinyTask(), Numbers("", length), seed) for seed in range(40)]
    bounds = [part * length // limit for part in range(limit + 1)]
    parts = [range(*pair) for pair in pairwise(bounds)]
    places = set()
    for chosen in (samples.spread(limit) for samples in splits):
        assert all(index in part for index, part in zip(chosen, parts, strict=True))
        places |= {index - part.start for index, part in zip(chosen, parts, strict=True)}
    assert places == set(range(max(map(len, parts))))
    assert [*splits[0].spread(None)] == [*splits[0].spread(length + 1)] == [*range(length)]


def test_the_randomness_of_a_replayed_sample_is_not_that_which_chose_it():
    mixture = ReplayMixture(Numbers("new", 6), [Numbers("old", 50)], 0.5)
    for index in range(6, 12):
        draws = SampleDraws(1, index)
        *_, drawn = mixture.sample(index, draws)
        assert drawn != draws.rng().random()
