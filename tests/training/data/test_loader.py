import multiprocessing
import os
import random
import signal
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gearshift.models.base import DataError
from gearshift.training.data.loader import Batches, EvaluationBatches
from gearshift.training.data.samples import DataOrder, Samples
from gearshift.training.train_plan import TrainPlan
from tests.training.tiny import TinySplit, TinyTask, make_settings

CPU = torch.device("cpu")


def world(rank=0, size=1):
    return SimpleNamespace(rank=rank, size=size, device=CPU)


def batches(
    task=None,
    *,
    workers=0,
    first_step=0,
    rank=0,
    size=1,
    micro_batch=2,
    split=None,
    global_batch=8,
    seed=0,
    **plan,
):
    task = task or TinyTask()
    split = split or task.data("train")
    order = DataOrder(len(split), global_batch, seed=0)
    accumulation = global_batch // micro_batch // size
    sizes = (global_batch, micro_batch, accumulation, size)
    train_plan = TrainPlan(6, order.steps_per_epoch, *sizes, "", first_step, **plan)
    loader = make_settings(loader={"workers": workers}).loader
    return Batches(Samples(task, split, seed), order, train_plan, world(rank, size), loader)


def rows(taken):
    return [micro.batch["x"].tolist() for micro in taken]


@pytest.fixture
def taken_in_process():
    here = batches()
    return [rows(here.take()) for _ in range(6)]


def test_worker_processes_give_the_batches_of_the_main_process(taken_in_process):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    helped = batches(workers=2)
    assert [rows(helped.take()) for _ in range(6)] == taken_in_process
    helped.close()
    assert torch.rand(1) == expected  # the global generator is unchanged


class Jittered(TinySplit):
    """A split whose samples draw from the global generators, as transforms of torchvision do."""

    def sample(self, index, draws):
        sample = super().sample(index, draws)
        drawn = (torch.rand(()).item() + np.random.rand() + random.random()) / 3
        return {**sample, "x": np.full_like(sample["x"], index + drawn)}


def jittered(seed=0, **changes):
    """The value of each sample of the first steps by its number, in the first epoch."""
    source = batches(split=Jittered(24), seed=seed, **changes)
    by_sample = {}
    for _ in range(3 - changes.get("first_step", 0)):
        for micro_batch in rows(source.take()):
            by_sample |= {int(value): value for value, *_ in micro_batch}
    source.close()
    return by_sample


def test_global_generators_in_workers_depend_on_seed_and_sample_only():
    whole = jittered(workers=2)
    assert len(set(value % 1 for value in whole.values())) == 24
    assert jittered(workers=1, micro_batch=4) == whole
    resumed = jittered(workers=2, first_step=2)
    assert resumed.items() <= whole.items() and len(resumed) == 8
    other = jittered(workers=2, seed=7)
    assert not other.items() & whole.items()


def test_batches_seen_ahead_are_those_taken_next(taken_in_process):
    source = batches(first_step=3)
    assert [rows(source.take()), rows(source.ahead()), rows(source.take())] == [
        *taken_in_process[3:5],
        taken_in_process[4],
    ]
    source.ahead()
    source.begin(4)
    assert [rows(source.take()) for _ in range(2)] == taken_in_process[4:]
    assert source.ahead() == []


class FaultySplit(TinySplit):
    def sample(self, index, draws):
        return {}["no such column"] if index == 9 else super().sample(index, draws)


@pytest.mark.parametrize(
    ("split", "error", "text"),
    [
        (FaultySplit, KeyError, "no such column"),
        (partial(TinySplit, bad=9), DataError, "^row 9 cannot be read$"),
    ],
)
def test_an_error_of_a_worker_is_raised(split, error, text):
    doomed = batches(workers=2, split=split(24))
    with pytest.raises(error, match=text):
        for _ in range(6):
            doomed.take()
    doomed.close()


def test_workers_ignore_stop_signals_and_end_when_the_loader_is_closed(taken_in_process):
    before = set(multiprocessing.active_children())
    helped = batches(workers=1)
    helped.take()
    (worker,) = set(multiprocessing.active_children()) - before
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(worker.pid, number)
    assert [rows(helped.take()) for _ in range(5)] == taken_in_process[1:]
    helped.close()
    assert set(multiprocessing.active_children()) <= before


def evaluation(length, size, micro_batch=3, workers=0):
    task = TinyTask(val=length)
    samples = Samples(task, task.data("val"), 0)
    loader = make_settings(loader={"workers": workers}).loader
    return [
        EvaluationBatches(samples, micro_batch, world(rank, size), loader) for rank in range(size)
    ]


@pytest.mark.parametrize(("length", "size"), [(1, 2), (7, 1), (7, 3), (24, 5)])
def test_each_sample_counts_once_and_ranks_have_equally_many_batches(length, size):
    shares = [list(share) for share in evaluation(length, size)]
    counted = [
        index
        for share in shares
        for micro, counts in share
        if counts
        for index in micro.batch["index"].tolist()
    ]
    assert sorted(counted) == list(range(length))
    assert len({len(share) for share in shares}) == 1
    own = [sum(counts for _, counts in share) for share in shares]
    assert max(own) - min(own) <= 1


def test_the_order_counts_from_the_start_of_the_data(taken_in_process):
    later = batches(first_step=2, data_start=2)
    assert [rows(later.take()) for _ in range(4)] == taken_in_process[:4]
    resumed = batches(first_step=4, data_start=2)
    assert rows(resumed.take()) == taken_in_process[2]


def test_the_next_smaller_micro_batch_is_at_most_half_and_divides_the_share():
    sizes = [12, 6, 3, 1]
    found = [batches(global_batch=12, micro_batch=size).smaller for size in sizes]
    assert found == [*sizes[1:], None]
