import math

import numpy as np
import pytest

from models.eeg_text.dataset import phase_randomised, random_others, retrieval_band


@pytest.mark.parametrize("samples", [480, 481])
def test_noise_has_only_the_spectrum_of_the_eeg(samples):
    rng = np.random.default_rng(0)
    eeg = np.cumsum(rng.standard_normal((samples, 6)), axis=0).astype(np.float32)
    noise = phase_randomised(eeg, rng)
    spectra = [np.abs(np.fft.rfft(x, axis=0)) for x in (eeg, noise)]
    np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-2, atol=1e-2)
    assert noise.dtype == np.float32
    correlations = [np.corrcoef(eeg[:, c] - eeg[:, c].mean(), noise[:, c])[0, 1] for c in range(6)]
    assert np.abs(correlations).max() < 0.9 and not np.allclose(eeg, noise, atol=0.1)


def test_correlations_between_channels_are_destroyed():
    rng = np.random.default_rng(0)
    channel = rng.standard_normal((2000, 1))
    noise = phase_randomised(np.repeat(channel, 2, axis=1), rng)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.15


def test_the_other_item_has_another_sentence():
    groups = [f"sentence {i % 7}" for i in range(40)]
    chosen = random_others(groups, 3)
    assert all(groups[i] != groups[k] for i, k in enumerate(chosen))
    assert len(set(chosen.tolist())) > 20
    assert (chosen == random_others(groups, 3)).all()


def test_with_a_single_sentence_the_other_item_has_it_too():
    assert random_others(["a", "a"], 0).shape == (2,)


def test_chance_and_its_errors_match_random_draws():
    band = retrieval_band(24, 60)
    assert band["chance"] == 1 / 24
    assert band["max"] - 1 / 24 == pytest.approx(3 * math.sqrt(1 / 24 * 23 / 24 / 60))
