import numpy as np
import pytest

from gearshift.training.data.mixed_order import MixedOrder, interleave
from gearshift.training.data.samples import DataOrder, permuted


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 1025])
def test_every_position_occurs_once(length):
    places = permuted(np.arange(length), length, 1)
    assert np.array_equal(np.sort(places), np.arange(length))


def test_a_position_of_a_huge_set_is_found_without_the_others():
    length = 2**40 + 1
    positions = np.array([0, 1, 2**20, 2**39, length - 1])
    places = permuted(positions, length, 1)
    assert len(set(places.tolist())) == len(positions)
    assert (places >= 0).all() and (places < length).all()
    assert np.array_equal(permuted(positions[3:4], length, 1), places[3:4])


def test_each_sample_is_at_each_position_equally_often():
    length, draws = 20, 600
    orders = [DataOrder(length, length, seed).batch(0)[1] for seed in range(draws)]
    counts = np.zeros((length, length))
    for order in orders:
        counts[np.arange(length), order] += 1
    expected = draws / length
    # Chi-square over its degrees of freedom: 1 ± 0.074 (one standard deviation), here 5 of them.
    assert ((counts - expected) ** 2 / expected).sum() / (length - 1) ** 2 < 1.37


def test_an_epoch_repeats_no_sample_and_drops_different_ones_each_time():
    order = DataOrder(11, 4, seed=5)
    epochs = [np.concatenate([order.batch(2 * e + s)[1] for s in range(2)]) for e in range(20)]
    assert all(len(set(epoch.tolist())) == 8 for epoch in epochs)
    dropped_samples = [frozenset(range(11)) - set(epoch.tolist()) for epoch in epochs]
    assert len(set(dropped_samples)) > 10
    assert [order.batch(step)[0] for step in range(5)] == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 6), (2, 3), (4, 1)])
def test_a_global_batch_is_the_same_for_any_ranks_and_micro_batches(world_size, micro_batch):
    order = DataOrder(100, 24, seed=1)
    epoch, indices = order.batch(5)
    _ = order.batch(2)  # access in any order
    assert np.array_equal(order.batch(5)[1], indices)
    shares = [order.share(5, rank, world_size, micro_batch) for rank in range(world_size)]
    assert {share[0] for share in shares} == {epoch}
    assert all(len(micro) == micro_batch for _, share in shares for micro in share)
    assert [i for _, share in shares for micro in share for i in micro] == indices.tolist()


def test_ranks_with_other_shares_take_the_same_batch_in_as_many_micro_batches():
    order = DataOrder(100, 24, seed=1)
    shares = [order.share(5, rank, 3, 2, (15, 5, 4))[1] for rank in range(3)]
    assert [[len(micro) for micro in share] for share in shares] == [
        [4, 4, 4, 3],
        [2, 1, 1, 1],
        [1, 1, 1, 1],
    ]
    assert [i for share in shares for micro in share for i in micro] == order.batch(5)[1].tolist()


SIZES = (700, 30, 5000)
WEIGHTS = (6, 3, 1)


def taken(world_size, micro_batch, steps=836):
    """The samples that each rank takes, in order, [rank][sample], of a global batch of 12."""
    order = MixedOrder(SIZES, WEIGHTS, 12, seed=4)
    ranks = range(world_size)
    return [
        [
            sample
            for step in range(steps)
            for micro in order.share(step, rank, world_size, micro_batch)[1]
            for sample in micro
        ]
        for rank in ranks
    ]


@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 12), (1, 4), (2, 3), (3, 2)])
def test_each_source_has_its_share_of_the_samples_of_all_ranks_and_of_each(world_size, micro_batch):
    starts = np.cumsum([0, *SIZES])
    ranks = taken(world_size, micro_batch)
    total = np.histogram(np.concatenate(ranks), starts)[0]
    # Of 10,032 samples; the bound of the method is 0.8 samples for the largest share.
    assert np.abs(total - 10_032 * np.array(WEIGHTS) / 10).max() < 1
    for samples in ranks:
        shares = np.histogram(samples, starts)[0] / len(samples)
        assert np.abs(shares - np.array(WEIGHTS) / 10).max() < 0.01
    steps = [np.reshape(samples, (-1, 12 // world_size)) for samples in ranks]
    assert np.array_equal(np.hstack(steps).ravel(), taken(1, 12)[0])


def test_a_small_source_is_repeated_in_another_order_and_a_large_one_goes_on():
    [samples] = map(np.array, taken(1, 12))
    small = samples[(samples >= 700) & (samples < 730)]
    passes = small[: len(small) // 30 * 30].reshape(-1, 30)
    assert len(passes) == 100
    assert (np.sort(passes, axis=1) == np.arange(700, 730)).all()
    assert len({tuple(each) for each in passes.tolist()}) == 100
    large = samples[samples >= 730]
    assert len(set(large.tolist())) == len(large) > 1000


def test_a_step_of_a_mixture_is_found_without_those_before_it():
    order = MixedOrder(SIZES, WEIGHTS, 12, seed=4)
    epoch, last = order.batch(835)
    assert (epoch, order.steps_per_epoch) == (1, 477)
    assert last.tolist() == taken(1, 12)[0][-12:]


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.97, 0.01, 0.02), (1, 0), (0.9, *[0.0125] * 8)])
def test_no_source_is_ever_ahead_or_behind_by_more_than_the_bound(shares):
    shares = np.array(shares)
    sources, numbers = interleave(0, 5000, shares)
    counts = (sources[:, None] == np.arange(len(shares))).cumsum(0)
    ahead = np.abs(counts - np.outer(np.arange(1, 5001), shares))
    assert (ahead.max(0) <= (1 + shares * (len(shares) - 2)) / 2 + 1e-9).all()
    for start, count in ((1, 9), (4096, 904), (3333, 1)):
        part = interleave(start, count, shares)
        assert np.array_equal(part, (sources[start : start + count], numbers[start:][:count]))
