import numpy as np
import pytest

from models.eeg_text.dataset import phase_randomised, random_others


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


def test_the_other_item_has_another_sentence():
    groups = [f"sentence {i % 7}" for i in range(40)]
    chosen = random_others(groups, 3)
    assert all(groups[i] != groups[k] for i, k in enumerate(chosen))
    assert len(set(chosen.tolist())) > 20
    assert (chosen == random_others(groups, 3)).all()
