import numpy as np
import pytest
import torch

from models.event_seg.network import IGNORE
from models.event_seg.readers.recording import Events, spans
from models.event_seg.windows import Rules, Windows, collate


class Still:
    """A recording in which each window has one more event than the one before, at one place."""

    format, second, unit, labels = "made", 1e6, "µs", "made"
    sensor = (64, 88)

    def __init__(self, name, row):
        self.name, self.row = name, row
        self.windows = spans(np.arange(11) * 1000)

    def events(self, index):
        t = np.linspace(*self.windows[index], index + 5, endpoint=False).astype(np.int64)
        place = np.full(len(t), self.row)
        return Events(t, place, place, np.ones(len(t), np.int8))

    def label(self, index, factor):
        label = np.zeros((64 // factor, 88 // factor), np.uint8)
        label[self.row // factor] = 1
        label[0] = 255
        return label


RECORDINGS = [Still("a", 20), Still("b", 40)]
BOTH = np.array([(number, window) for number in (0, 1) for window in range(10)])


def windows(control="real", fixed=1, crop=(32, 44), masked=False, downsample=1, chosen=BOTH):
    return Windows(RECORDINGS, chosen, Rules(downsample, crop, control, 0, masked), fixed)


def test_a_sample_is_its_window_and_label(draws):
    samples = windows(crop=None)
    assert len(samples) == 20
    sample = samples.sample(13, draws(0))
    assert sample.meta == {"recording": "b", "frame": 3, "t0": 0.003, "t1": 0.004, "events": 8}
    assert sample.events.shape == (10, 64, 88) and sample.events.dtype == np.float32
    assert np.flatnonzero(sample.events.any((0, 2))).tolist() == [40]
    assert (sample.labels[40] == 1).all() and (sample.labels[0] == IGNORE).all()
    assert sample.labels.dtype == np.int64 and sample.hidden is None


def test_downsampling_shrinks_events_and_label_alike(draws):
    sample = windows(crop=None, downsample=2).sample(13, draws(0))
    assert sample.events.shape[1:] == sample.labels.shape == (32, 44)
    assert sample.events[:, 20, 20].any() and (sample.labels[20] == 1).all()


def test_a_crop_shows_the_same_place_of_events_and_label(draws):
    rows = set()
    for number in range(20):
        sample = windows(fixed=None).sample(13, draws(number))
        assert sample.events.shape[1:] == sample.labels.shape == (32, 44)
        (row,) = np.flatnonzero(sample.events.any((0, 2)))
        assert (sample.labels[row] == 1).all()
        rows.add(row)
    assert len(rows) > 5  # elsewhere in each epoch


@pytest.mark.parametrize("control", ["real", "noise", "shuffle"])
@pytest.mark.parametrize("masked", [False, True])
def test_what_is_evaluated_never_changes_and_what_is_trained_on_does(draws, control, masked):
    def alike(fixed):
        samples = windows(control, fixed, masked=masked)
        one, other = samples.sample(3, draws(1)), samples.sample(3, draws(2))
        keys = ("events", "labels", "hidden") if masked else ("events", "labels")
        return all(np.array_equal(getattr(one, k), getattr(other, k)) for k in keys)

    assert alike(fixed=1) and not alike(fixed=None)


def test_noise_has_the_events_of_another_window_in_number_and_no_place(draws):
    samples = windows("noise", fixed=None, crop=None)
    counts, filled = set(), np.zeros((64, 88), bool)
    for number in range(60):
        sample = samples.sample(2, draws(number))
        assert (sample.labels[20] == 1).all()
        counts.add(sample.meta["events"])
        filled |= sample.events.any(0)
    assert counts == set(range(5, 15))  # of the other recording's windows
    assert filled.any(0).sum() > 80 and filled.any(1).sum() > 60


def test_a_shuffled_label_is_of_another_recording_or_time(draws):
    sample = windows("shuffle", crop=None).sample(2, draws(0))
    assert np.flatnonzero(sample.events.any((0, 2))).tolist() == [20]
    assert (sample.labels[40] == 1).all() and (sample.labels[20] == 0).all()
    alone = windows("shuffle", fixed=None, chosen=BOTH[:10])
    for number in range(20):
        assert abs(alone._partner(2, draws(number).rng()) - 2) >= 4


def test_hidden_pixels_are_squares_and_their_mass_is_that_of_the_grid(draws):
    sample = windows(masked=True).sample(13, draws(0))
    assert sample.hidden.shape == (32, 44) and 0.3 < sample.hidden.mean() < 0.7
    assert (sample.hidden[:8, :8] == sample.hidden[0, 0]).all()
    grid = sample.events.astype(np.float64)
    expected = np.log1p([grid.clip(0).sum(0), (-grid).clip(0).sum(0)])
    np.testing.assert_allclose(sample.labels, expected, rtol=1e-6)


def test_in_a_shuffle_the_hidden_mass_is_of_another_recording(draws):
    sample = windows("shuffle", masked=True, crop=None).sample(2, draws(0))
    assert np.flatnonzero(sample.labels.any((0, 2))).tolist() == [40]


def test_the_foreground_is_counted_over_what_is_evaluated(draws):
    samples = windows()
    labels = np.stack([samples.sample(i, draws(0)).labels for i in range(len(samples))])
    assert samples.foreground() == ((labels == 1).sum(), (labels != IGNORE).sum())


def test_a_batch_says_how_many_pixels_count(draws):
    samples = windows(crop=None)
    batch = collate([samples.sample(i, draws(i)) for i in (1, 12)])
    assert batch["events"].shape == (2, 10, 64, 88) and batch["events"].dtype == torch.float32
    assert batch["mask"].dtype == torch.int64 and batch["valid"].dtype == torch.bool
    assert batch["units"] == int(batch["valid"].sum()) == 2 * 63 * 88
    assert [meta["frame"] for meta in batch["meta"]] == [1, 2]
    masked = windows(masked=True)
    batch = collate([masked.sample(i, draws(i)) for i in (1, 12)])
    assert batch["mass"].shape == (2, 2, 32, 44) and batch["mass"].dtype == torch.float32
    assert batch["units"] == int(batch["hidden"].sum())
