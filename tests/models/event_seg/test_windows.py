import numpy as np
import pytest

from gearshift.models.event_seg.network import IGNORE
from gearshift.models.event_seg.readers.recording import Events, spans
from gearshift.models.event_seg.windows import Windows, voxelize
from tests.models.event_seg.writers import random_events


class Still:
    """A recording in which each window has one more event than the previous one, at one pixel."""

    format, second, labels = "made", 1e6, "made"
    sensor = (64, 88)

    def __init__(self, name, row):
        self.name, self.row = name, row
        self.windows = spans(np.arange(11) * 1000)

    def events(self, index):
        t = np.linspace(*self.windows[index], index + 5, endpoint=False).astype(np.int64)
        rows = np.full(len(t), self.row)
        return Events(t, rows, rows, np.ones(len(t), np.int8))

    def label(self, index, factor):
        label = np.zeros((64 // factor, 88 // factor), np.uint8)
        label[self.row // factor] = 1
        label[0] = 255
        return label


RECORDINGS = [Still("a", 20), Still("b", 40)]
BOTH = np.array([(number, window) for number in (0, 1) for window in range(10)])


def windows(control="real", fixed=1, crop=(32, 44), downsample=1, chosen=BOTH):
    return Windows(RECORDINGS, chosen, fixed, downsample, crop, control, 0)


def test_a_sample_is_its_window_and_label(draws):
    samples = windows(crop=None)
    assert len(samples) == 20
    sample = samples.sample(13, draws(0))
    assert sample["meta"] == {"recording": "b", "frame": 3, "t0": 0.003, "t1": 0.004, "events": 8}
    assert sample["events"].shape == (10, 64, 88) and sample["events"].dtype == np.float32
    assert np.flatnonzero(sample["events"].any((0, 2))).tolist() == [40]
    assert (sample["labels"][40] == 1).all() and (sample["labels"][0] == IGNORE).all()
    assert sample["labels"].dtype == np.int64


def test_a_crop_is_aligned_between_events_and_label(draws):
    rows = set()
    for number in range(20):
        sample = windows(fixed=None).sample(13, draws(number))
        assert sample["events"].shape[1:] == sample["labels"].shape == (32, 44)
        (row,) = np.flatnonzero(sample["events"].any((0, 2)))
        assert (sample["labels"][row] == 1).all()
        rows.add(row)
    assert len(rows) > 5  # elsewhere in each epoch


@pytest.mark.parametrize("control", ["real", "noise", "shuffle"])
def test_evaluation_samples_are_fixed_and_training_samples_are_augmented(draws, control):
    def samples_are_equal(fixed):
        samples = windows(control, fixed)
        first, second = samples.sample(3, draws(1)), samples.sample(3, draws(2))
        return all(np.array_equal(first[k], second[k]) for k in ("events", "labels"))

    assert samples_are_equal(fixed=1) and not samples_are_equal(fixed=None)


def test_noise_has_the_events_of_another_window_in_number_and_no_place(draws):
    samples = windows("noise", fixed=None, crop=None)
    counts, filled = set(), np.zeros((64, 88), bool)
    for number in range(60):
        sample = samples.sample(2, draws(number))
        assert (sample["labels"][20] == 1).all()
        counts.add(sample["meta"]["events"])
        filled |= sample["events"].any(0)
    assert counts == set(range(5, 15))  # of the other recording's windows
    assert filled.any(0).sum() > 80 and filled.any(1).sum() > 60


def test_a_shuffled_label_is_of_another_recording_or_time(draws):
    sample = windows("shuffle", crop=None).sample(2, draws(0))
    assert np.flatnonzero(sample["events"].any((0, 2))).tolist() == [20]
    assert (sample["labels"][40] == 1).all() and (sample["labels"][20] == 0).all()
    alone = windows("shuffle", fixed=None, chosen=BOTH[:10])
    for number in range(20):
        assert abs(alone._other_window(2, draws(number).rng()) - 2) >= 4


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
    grid = voxelize(events, 0, 10_000, (10, 48, 64))
    assert grid.dtype == np.float32
    np.testing.assert_allclose(grid, by_hand(events, 0, 10_000, (10, 48, 64)), atol=1e-5)


def test_times_since_1970_keep_their_microseconds():
    start = 1_500_000_000.25
    micro = random_events(2000, 33_332)
    events = Events(start + micro.t * 1e-6, micro.x, micro.y, np.ones_like(micro.p))
    grid = voxelize(events, start, start + 0.033333, (10, 48, 64))
    # In float32 all of them would be at one instant.
    share = grid.sum((1, 2)) / len(events)
    assert (share > 0.04).all() and share[1:-1] == pytest.approx(np.full(8, 1 / 9), abs=0.02)


def test_events_are_dropped_where_the_coarser_grid_ends():
    x, y = np.array([0, 1, 63, 64, -1]), np.array([0, 47, 48, 5, 5])
    coarse = Events(np.arange(5), x, y, np.ones(5, np.int8)).downsampled(2, 24, 32)
    assert [column.tolist() for column in (coarse.t, coarse.x, coarse.y)] == [
        [0, 1],
        [0, 0],
        [0, 23],
    ]


@pytest.mark.parametrize("t", [-1, 10])
def test_an_event_outside_the_window_does_not_count(t):
    event = Events(np.array([t]), np.array([0]), np.array([0]), np.array([1], np.int8))
    assert not voxelize(event, 0, 10, (10, 4, 5)).any()
