import numpy as np
import pytest

from gearshift.models.eeg_text import embedded
from gearshift.models.eeg_text.embedded import NOISE_UV, READING, SMALL, Readers
from gearshift.models.eeg_text.montage import INDICES


@pytest.fixture(scope="module")
def readers():
    return Readers(READING)


def test_the_large_set_matches_its_specification(readers):
    assert len(readers) == 12 * 400
    assert len(readers.words) == 60
    assert len(set(readers.sentences)) == 400
    assert {len(words) for words in readers.sentences} == {3, 4, 5}
    assert readers.recording(0).shape == (800, 105)
    # The length of a recording does not reveal the number of its words.
    assert {item.samples for item in embedded.read("embedded:reading").items} == {800}


@pytest.mark.parametrize("recipe", [READING, SMALL], ids=lambda recipe: recipe.name)
def test_one_channel_has_the_specified_signal_to_noise_ratio(recipe):
    readers, silent = Readers(recipe), Readers(recipe._replace(snr_db=-300.0))
    channels = [c for name in INDICES if name != "prefrontal" for c in INDICES[name]]  # no blinks
    noise = np.mean([silent.recording(i)[:, channels].var() for i in range(20)])
    codes = readers._codes.reshape(len(readers.words), -1)
    peaks = np.concatenate([codes @ mixing for mixing in readers._mixing_of])[:, channels]
    signal = (peaks**2).mean() * 10 ** (recipe.snr_db / 10) * NOISE_UV**2
    # Words and channels are few: their mean power is not quite what it is drawn from.
    assert 10 * np.log10(signal / noise) == pytest.approx(recipe.snr_db, abs=1.0)
