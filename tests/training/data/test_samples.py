from __future__ import annotations

import itertools

import pytest

from models.base import DataError
from tests.training.tiny import TinyTask
from training.data.samples import SampleDraws, Samples


def test_draws_start_anew_at_each_call():
    draws = SampleDraws(1, 2)
    assert draws.rng().random(3).tolist() == draws.rng().random(3).tolist()


def test_no_two_samples_or_epochs_draw_alike():
    pairs = itertools.product((0, 1, 2**63 - 1), (0, 1, 2, 2**40))
    assert len({SampleDraws(key, index).rng().random() for key, index in pairs}) == 12


def rows(samples, epoch, indices):
    return samples[epoch, indices].batch["x"].tolist()


def test_a_sample_is_the_same_in_any_company_and_another_in_another_epoch():
    task = TinyTask()
    samples = Samples(task, task.data("train"), seed=4)
    together, alone = rows(samples, 1, [3, 5]), rows(samples, 1, [5])
    assert together[1] == alone[0]
    assert rows(samples, 2, [5]) != alone
    assert rows(Samples(task, task.data("train"), seed=5), 1, [5]) != alone


def test_a_micro_batch_knows_its_units():
    task = TinyTask()
    assert Samples(task, task.data("train"), 0)[0, [1, 2, 3]].weight == 1 + 2 + 3


def test_a_data_error_is_handed_over_as_it_is():
    task = TinyTask(bad=2)
    found = Samples(task, task.data("train"), 0)[0, [1, 2]]
    assert isinstance(found, DataError)
    assert str(found) == "row 2 cannot be read"


def test_any_other_fault_is_raised():
    task = TinyTask()
    task.collate = lambda samples: {}["missing"]
    with pytest.raises(KeyError):
        Samples(task, task.data("train"), 0)[0, [1]]
