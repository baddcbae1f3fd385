from dataclasses import replace

import numpy as np
import pytest

from models.common.split import SplitRule, split_groups
from models.eeg_text import embedded
from models.eeg_text.embedded import NOISE_UV, READING, SMALL, Readers
from models.eeg_text.montage import INDICES


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


@pytest.mark.parametrize("name", embedded.EMBEDDED)
def test_all_words_of_the_evaluated_sentences_occur_in_training(name):
    sentences = [" ".join(words) for words in Readers(embedded.EMBEDDED[name]).sentences]
    for seed in range(5):
        splits = split_groups(sentences, SplitRule(0.15, seed), "{}")
        words = {part: {w for s in splits[part] for w in s.split()} for part in splits}
        assert words["val"] | words["test"] <= words["train"]


@pytest.mark.parametrize("recipe", [READING, SMALL], ids=lambda recipe: recipe.name)
def test_one_channel_has_the_specified_signal_to_noise_ratio(recipe):
    readers, silent = Readers(recipe), Readers(replace(recipe, snr_db=-300.0))
    channels = [c for name in INDICES if name != "prefrontal" for c in INDICES[name]]  # no blinks
    noise = np.mean([silent.recording(i)[:, channels].var() for i in range(20)])
    codes = readers._codes.reshape(len(readers.words), -1)
    peaks = np.concatenate([codes @ mixing for mixing in readers._mixing_of])[:, channels]
    signal = (peaks**2).mean() * 10 ** (recipe.snr_db / 10) * NOISE_UV**2
    # Words and channels are few: their mean power is not quite what it is drawn from.
    assert 10 * np.log10(signal / noise) == pytest.approx(recipe.snr_db, abs=1.0)


def test_the_small_set_is_cached_and_read_back(text_task):
    simulated = Readers(SMALL).recording(3)
    cached = embedded.load("embedded:reading-small", 3)
    np.testing.assert_allclose(cached, simulated, rtol=2e-3, atol=2e-3)
    assert isinstance(embedded._cached("embedded:reading-small"), np.memmap)
