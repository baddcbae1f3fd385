import math

import numpy as np
import pytest
import torch

from gearshift.models.eeg_text.config import TOKEN_SAMPLES
from gearshift.models.eeg_text.metric import INPUTS, gain


class Knowing(torch.nn.Module):
    """Generates the sentence listed for the sum of an EEG, and the last one for others."""

    def __init__(self, sentences, tokenizer):
        super().__init__()
        self.sentences, self.tokenizer, self.calls = sentences, tokenizer, 0

    def forward(self, eeg, valid, ids=None, memory=None, pool=None):
        self.calls += 1
        if ids is None:
            return eeg.abs().sum((1, 2))
        logits = torch.zeros(*ids.shape, self.tokenizer.size)
        for row, key in enumerate(memory.tolist()):
            text = self.sentences.get(round(key, 1), self.sentences[None])
            tokens = [*self.tokenizer.encode(text), self.tokenizer.end]
            for at in range(min(len(tokens), ids.shape[1])):
                logits[row, at, tokens[at]] = 20.0
        return logits


@pytest.fixture
def batch(text_task, batch_of):
    return batch_of(text_task, 6, "val")


@pytest.fixture
def knowing(text_task, batch):
    keys = batch["eeg"].abs().sum((1, 2)).tolist()
    sentences = {round(key, 1): text for key, text in zip(keys, batch["text"], strict=True)}
    return Knowing(sentences | {None: "pig led tin"}, text_task.tokenizer)


def test_a_perfect_model_scores_1_and_gains_over_noise(text_task, batch, knowing):
    metric = text_task.metric()
    found = metric.result(metric.update(knowing, batch))
    assert found["val_rouge1"] == found["val_retrieval"] == 1.0 and found[
        "val_bleu1"
    ] == pytest.approx(1)
    assert found["val_wer"] == 0.0 and found["val_loss"] < 0.01
    assert found["val_retrieval_noise"] < 0.5 and found["val_wer_noise"] > 0.5
    assert found["val_rouge1_gain"] == pytest.approx(
        1 - max(found["val_rouge1_noise"], found["val_rouge1_other"])
    )


def test_a_constant_model_gains_nothing(text_task, batch):
    metric, model = text_task.metric(), Knowing({None: "pig led tin"}, text_task.tokenizer)
    found = metric.result(metric.update(model, batch))
    assert found["val_rouge1_gain"] == found["val_rouge1_gain_se"] == 0.0
    assert found["val_rouge1_gain_in_se"] == 0.0
    assert found["val_rouge1"] == found["val_rouge1_noise"] == found["val_rouge1_other"]


def test_passes_do_not_depend_on_the_batch_and_one_has_no_error(text_task, batch_of):
    texts, metric = text_task.texts, text_task.metric()
    for rows in (1, 4):
        model = Knowing({None: "ant bit bag"}, text_task.tokenizer)
        found = metric.result(metric.update(model, batch_of(text_task, rows, "val")))
        assert model.calls == 1 + texts.candidate_count + texts.steps == 1 + 24 + 12
        assert (found["val_rouge1_gain_se"] is None) == (rows == 1)
        assert (found["val_rouge1_gain_in_se"] is None) == (rows == 1)


def test_the_standard_error_counts_sentences_and_not_readers():
    rng = np.random.default_rng(0)
    eeg, noise = rng.random(30), rng.random(30)
    differences = eeg - noise
    for readers in (1, 3):
        table = np.zeros((40, 1 + len(INPUTS)))
        table[:30, 0] = readers
        table[:30, 1], table[:30, 2] = readers * eeg, readers * noise
        found = gain(table)
        assert found["val_rouge1_gain"] == pytest.approx(min(differences.mean(), eeg.mean()))
        assert found["val_rouge1_gain_se"] == pytest.approx(differences.std(ddof=1) / math.sqrt(30))


class Guess(torch.nn.Module):
    """Predicts with `share` of the information."""

    def __init__(self, share, eeg):
        super().__init__()
        self.share, self.eeg = share, eeg

    def forward(self, eeg, valid, hidden):
        return self.share * self.eeg


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_masked_r2_is_over_the_masked_values(masked_task, batch_of, share):
    batch, metric = batch_of(masked_task, split="val"), masked_task.metric()
    found = metric.result(metric.update(Guess(share, batch["eeg"]), batch))
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, 1)
    values = batch["eeg"][hidden].double().numpy()
    expected = 1 - ((1 - share) ** 2 * values**2).mean() / values.var()
    assert found["val_masked_r2"] == pytest.approx(expected)
    assert found["val_loss"] == pytest.approx(((1 - share) ** 2 * values**2).mean())
    assert 0 < found["val_interpolation_r2"] < 1
    counts = metric.update(Guess(share, batch["eeg"]), batch)
    assert counts[0].item() == batch["units"] == hidden.sum().item() * 105
