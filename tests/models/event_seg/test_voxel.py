import numpy as np
import pytest

from models.event_seg.readers.recording import Events
from models.event_seg.voxel import normalise, voxelise
from tests.models.event_seg.writers import random_events


def by_hand(events, start, stop, shape):
    """Each event by itself, in float64."""
    grid = np.zeros(shape)
    for t, x, y, p in zip(*vars(events).values(), strict=True):
        s = (shape[0] - 1) * (float(t) - start) / (stop - start)
        for b in range(shape[0]):
            grid[b, y, x] += p * max(0.0, 1 - abs(b - s))
    return grid


def test_each_event_is_shared_between_its_two_bins():
    events = random_events(500, 9_999)
    grid = voxelise(events, 0, 10_000, (10, 48, 64))
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, by_hand(events, 0, 10_000, (10, 48, 64)), atol=1e-5)


def test_mass_is_kept():
    events = random_events(3000, 29_999)
    grid = voxelise(events, 0, 30_000, (10, 48, 64))
    assert grid.sum() == pytest.approx(events.p.sum(), abs=1e-3)


def test_times_since_1970_keep_their_microseconds():
    start = 1_500_000_000.25
    micro = random_events(2000, 33_332)
    events = Events(start + micro.t * 1e-6, micro.x, micro.y, np.ones_like(micro.p))
    grid = voxelise(events, start, start + 0.033333, (10, 48, 64))
    # In float32 all of them would be at one instant.
    share = grid.sum((1, 2)) / len(events)
    assert (share > 0.04).all() and share[1:-1] == pytest.approx(np.full(8, 1 / 9), abs=0.02)


def test_an_event_just_before_the_end_is_in_the_last_bin():
    events = Events(np.array([999_999_999]), np.array([3]), np.array([2]), np.array([-1], np.int8))
    grid = voxelise(events, 0, 10**9, (10, 4, 5))
    assert grid[9, 2, 3] == pytest.approx(-1, abs=1e-5)
    assert grid.sum() == pytest.approx(-1)


@pytest.mark.parametrize(("t", "x", "y"), [(-1, 0, 0), (10, 0, 0), (5, 5, 3), (5, 0, -1)], ids=str)
def test_an_event_outside_is_refused(t, x, y):
    one = Events(np.array([t]), np.array([x]), np.array([y]), np.array([1], np.int8))
    with pytest.raises(ValueError):
        voxelise(one, 0, 10, (10, 4, 5))


def test_without_events_there_is_nothing():
    none = random_events(5, 10)[:0]
    assert not voxelise(none, 0, 10, (10, 4, 5)).any()
    assert not normalise(np.zeros((10, 4, 5), np.float32)).any()


def test_cells_with_events_get_deviation_one():
    grid = voxelise(random_events(500, 9_999), 0, 10_000, (10, 48, 64))
    scaled = normalise(grid)
    assert scaled[scaled != 0].std() == pytest.approx(1, rel=1e-5)
    assert ((scaled == 0) == (grid == 0)).all()
    alike = np.array([[[2.0, 0.0, 2.0]]], np.float32)
    assert normalise(alike) is alike  # no deviation to divide by


def test_events_are_dropped_where_the_coarser_grid_ends():
    x, y = np.array([0, 1, 63, 64, -1]), np.array([0, 47, 48, 5, 5])
    events = Events(np.arange(5), x, y, np.ones(5, np.int8))
    coarse = events.downsampled(2, 24, 32)
    assert (coarse.x.tolist(), coarse.y.tolist()) == ([0, 0], [0, 23])
    assert coarse.t.tolist() == [0, 1]
