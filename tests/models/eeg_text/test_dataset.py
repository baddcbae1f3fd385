import numpy as np
import pytest

from models.eeg_text.dataset import LONGEST, SHORTEST, draw_mask


def runs(hidden):
    edges = np.flatnonzero(np.diff(np.concatenate(([0], hidden.astype(int), [0]))))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize("tokens", [14, 37, 120, 200])
def test_spans_of_two_to_eight_tokens_cover_their_share(tokens):
    for seed in range(50):
        hidden = draw_mask(np.random.default_rng(seed), tokens, 0.15)
        assert hidden.sum() == round(0.15 * tokens)
        assert all(SHORTEST <= length <= LONGEST for length in runs(hidden))


def test_every_position_is_hidden_about_equally_often():
    drawn = [draw_mask(np.random.default_rng(seed), 60, 0.15) for seed in range(3000)]
    often = np.mean(drawn, axis=0)
    # Less at the ends, which fewer spans can reach.
    assert often[8:-8].min() > 0.11 and often[8:-8].max() < 0.19
    assert often[0] > 0.03


@pytest.mark.parametrize("tokens", [0, 1, 2, 6])
def test_too_few_tokens_have_no_span(tokens):
    assert not draw_mask(np.random.default_rng(0), tokens, 0.15).any()


def test_a_large_share_leaves_tokens_between_the_spans():
    hidden = draw_mask(np.random.default_rng(0), 30, 0.95)
    assert 0.5 < hidden.mean() < 0.95
    assert max(runs(hidden)) <= LONGEST
