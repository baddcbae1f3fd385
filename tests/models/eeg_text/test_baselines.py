import math

import pytest
import torch

from gearshift.models.base import HasBaselines
from gearshift.models.eeg_text.baselines import constant_sentence, interpolation
from gearshift.models.eeg_text.config import CHANNELS


def trained_on(*sentences):
    return [{"meta": {"sentence": list(sentences)}}]


def test_the_constant_sentence_is_that_of_training_and_gains_nothing():
    train = trained_on("the cat ran", "the cat sat", "a dog sat")
    held_out = [{"text": ["The cat sat."]}, {"text": ["A cat sat!"]}]
    (found,) = constant_sentence(train, held_out)
    assert found.metrics == {
        "val_rouge1": pytest.approx((1 + 2 / 3) / 2),
        "val_rouge1_gain": 0.0,
        "val_wer": pytest.approx(1 / 6),
        "val_bleu1": pytest.approx(5 / 6),
        "val_bleu2": pytest.approx(math.sqrt(5 / 6 * 3 / 4)),
        "val_bleu3": pytest.approx((5 / 6 * 3 / 4 * 1 / 2) ** (1 / 3)),
        "val_bleu4": 0.0,  # no sentence has four words
    }


def test_frequent_words_may_share_more_than_any_sentence():
    train = trained_on("the a b", "the c d", "the e f", "the g h", "the i j", "the k l")
    (found,) = constant_sentence(train, [{"text": ["the sun shines"]}])
    assert found.metrics["val_rouge1"] == 0.5  # "the"; a sentence has a third


def masked(eeg, channels=CHANNELS):
    """A batch whose third token of four samples is hidden, with the first of 105 channels."""
    hidden = torch.zeros(1, eeg.shape[1] // 4, dtype=torch.bool)
    hidden[0, 2] = True
    valid = torch.ones(eeg.shape[:2], dtype=torch.bool)
    return {
        "eeg": eeg,
        "seen": eeg,
        "eeg_mask": valid,
        "seen_mask": valid,
        "mask_target": hidden,
        "recorded": (torch.arange(CHANNELS) < channels)[None],
    }


def test_interpolation_is_measured_on_masked_samples_of_recorded_channels():
    eeg = torch.zeros(1, 32, CHANNELS)
    eeg[:, :, :40] = torch.arange(32)[None, :, None] / 32
    eeg[:, 8:12, 40:] = torch.tensor([1.0, -1.0, 1.0, -1.0])[None, :, None]
    mean, lines = interpolation([], [masked(eeg, 40)])
    assert mean.metrics == {"val_masked_r2": 0.0}
    assert lines.metrics == {"val_masked_r2": pytest.approx(1)}

    # Lines explain all of 40 channels and nothing of the same number of others.
    other = eeg.roll(-40, dims=2)
    variance_of_line = sum((k - 1.5) ** 2 for k in range(4)) / 4 / 32**2
    offset = (9.5 / 32) ** 2 / 4  # half of the values have another mean
    variance = (variance_of_line + 1) / 2 + offset
    _, lines = interpolation([], [masked(eeg, 40), masked(other, 40)])
    assert lines.metrics == {"val_masked_r2": pytest.approx(1 - 0.5 / variance)}


def test_both_stages_have_baselines(text_task, masked_task, batch_of):
    for task, metric in ((text_task, "val_rouge1"), (masked_task, "val_masked_r2")):
        assert isinstance(task, HasBaselines)
        found = task.baselines([batch_of(task, 30)], [batch_of(task, 30, "val")])
        assert 0.05 < found[-1].metrics[metric] < 0.5
        assert task.goal.metric in found[-1].metrics
