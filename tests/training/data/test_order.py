import numpy as np
import pytest

from gearshift.training.data.samples import DataOrder, permute

KEYS = [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 1025])
def test_every_position_occurs_once(length):
    permuted = permute(np.arange(length, dtype=np.uint64), length, KEYS)
    assert np.array_equal(np.sort(permuted), np.arange(length))


def test_a_position_of_a_huge_set_is_found_without_the_others():
    length = 2**40 + 1
    positions = np.array([0, 1, 2**20, 2**39, length - 1], dtype=np.uint64)
    permuted = permute(positions, length, KEYS)
    assert len(set(permuted.tolist())) == len(positions)
    assert (permuted >= 0).all() and (permuted < length).all()
    assert np.array_equal(permute(positions[3:4], length, KEYS), permuted[3:4])


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
