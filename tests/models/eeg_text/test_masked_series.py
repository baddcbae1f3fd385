from math import isnan

import numpy as np
import pytest
import torch

from gearshift.models.eeg_text.masked_series import (
    draw_spans,
    interpolate,
    masked_counts,
    masked_scores,
)

SHORTEST, LONGEST = 2, 8


def spans(seed, length, share):
    return draw_spans(
        np.random.default_rng(seed),
        length,
        share,
    )


def runs(hidden):
    edges = np.flatnonzero(np.diff(np.concatenate(([0], hidden.astype(int), [0]))))
    return (edges[1::2] - edges[::2]).tolist()


def test_spans_of_two_to_eight_positions_cover_their_share_if_there_is_room():
    for length in (14, 37, 200):
        for seed in range(50):
            hidden = spans(seed, length, 0.15)
            assert hidden.sum() == round(0.15 * length)
            assert all(SHORTEST <= run <= LONGEST for run in runs(hidden))
    assert not any(spans(0, length, 0.15).any() for length in (0, 1, 2, 6))


def test_gaps_are_interpolated_linearly():
    rng = np.random.default_rng(0)
    eeg = torch.from_numpy(rng.standard_normal((2, 50, 3)))
    known = torch.from_numpy(rng.random((2, 50)) > 0.4)
    found = interpolate(eeg, known)
    for row in range(2):
        at = np.flatnonzero(known[row].numpy())
        for channel in range(3):
            expected = np.interp(np.arange(50), at, eeg[row, at, channel].numpy())
            np.testing.assert_allclose(found[row, :, channel].numpy(), expected)


def scores(counts):
    return masked_scores({"masked": counts})


def test_scores_are_explained_variance_of_the_chosen_values():
    rng = np.random.default_rng(0)
    true, guess, lines = (torch.from_numpy(rng.standard_normal((4, 30, 2))) for _ in range(3))
    chosen = torch.from_numpy(rng.random((4, 30, 2)) < 0.3)
    given = true, guess, lines, chosen
    found = scores(sum(masked_counts(*(x[i : i + 2] for x in given)) for i in (0, 2)))
    values = true[chosen].numpy()
    for name, other in (("val_masked_r2", guess), ("val_interpolation_r2", lines)):
        expected = 1 - np.square(other[chosen].numpy() - values).mean() / values.var()
        assert found[name] == pytest.approx(expected)
    for unknown, hidden in ((true, chosen & False), (torch.ones_like(true), chosen)):
        undefined = scores(masked_counts(unknown, guess, lines, hidden))
        assert isnan(undefined["val_masked_r2"]) and isnan(undefined["val_interpolation_r2"])
    mean = torch.full_like(true, values.mean())
    found = scores(masked_counts(true, mean, lines, chosen))
    assert found["val_masked_r2"] == pytest.approx(0)
