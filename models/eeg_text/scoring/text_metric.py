"""What is measured of sentences: always free-running, and beside what other inputs give."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.base import Batch
from models.eeg_text.recordings import words
from models.eeg_text.scoring.generation import remembered, write
from models.eeg_text.scoring.scores import bleu, bleu_counts, rouge1, word_errors
from models.eeg_text.texts import Texts

INPUTS = ("eeg", "noise", "other")
"""EEG, noise of its spectrum, EEG of another sentence."""
_BLEU = 10
_PER_INPUT = _BLEU + 1  # and word errors
_PER_SENTENCE = 1 + 2 * len(INPUTS)  # samples; ROUGE-1 and found ones of each input


class TextMetric:
    """Counts over samples, and over the samples of each sentence."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds, float64: nats, tokens, then counts of each input, then sentences.

        Takes one forward pass of the encoder, one of the decoder for each candidate, and one for
        each token that is written, whatever the batch holds.
        """
        memory, valid = remembered(model, batch, INPUTS)
        likelihood = self._likelihood(model, memory, valid, batch["candidates"])
        # Better than all others: that a candidate stands first must not decide.
        found = (likelihood[:, :1] > likelihood[:, 1:]).all(1).view(len(INPUTS), -1)
        tokenizer = self.texts.tokenizer
        written = write(model, memory, valid, self.texts.steps, tokenizer).cpu().tolist()
        texts = [words(tokenizer.decode(row)) for row in written]
        read = [words(text) for text in batch["text"]]
        rows = len(read)
        nats = -likelihood[:rows, 0].sum().item()
        tokens = (batch["candidates"][:, 0, 1:] != tokenizer.pad).sum().item()
        overall = [np.array([nats, tokens])]
        by_sentence = np.zeros((self.texts.judged, _PER_SENTENCE))
        numbers = batch["number"].cpu().numpy()
        np.add.at(by_sentence[:, 0], numbers, 1)
        for i in range(len(INPUTS)):
            pairs = list(zip(texts[i * rows : (i + 1) * rows], read, strict=True))
            errors = sum(word_errors(*pair) for pair in pairs)
            overall.append(np.append(sum(bleu_counts(*pair) for pair in pairs), errors))
            np.add.at(by_sentence[:, 1 + 2 * i], numbers, [rouge1(*pair) for pair in pairs])
            np.add.at(by_sentence[:, 2 + 2 * i], numbers, found[i].cpu().numpy())
        counts = np.concatenate([*overall, by_sentence.ravel()])
        is_mps = memory.device.type == "mps"  # has no float64
        return torch.from_numpy(counts).to("cpu" if is_mps else memory.device)

    def _likelihood(
        self, model: Module, memory: Tensor, valid: Tensor, candidates: Tensor
    ) -> Tensor:
        """Log-likelihood [input × batch, candidate] of each candidate given each input."""
        found = []
        for number in range(self.texts.candidate_count):
            tokens = candidates[:, number].repeat(len(INPUTS), 1)
            logits = model(None, valid, tokens[:, :-1], memory=memory).float()
            pad = self.texts.tokenizer.pad
            nats = F.cross_entropy(
                logits.transpose(1, 2), tokens[:, 1:], ignore_index=pad, reduction="none"
            )
            found.append(-nats.sum(1))
        return torch.stack(found, dim=1)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts; those of noise and of other EEG have it in their name.

        `val_rouge1_gain` is what EEG gives above the better of the two; its standard error counts
        sentences, not samples, as all readers of one sentence have the same to tell.
        """
        n = counts.cpu().double().numpy()
        metrics = {"val_loss": float(n[0] / n[1])}
        sentences = n[2 + _PER_INPUT * len(INPUTS) :].reshape(-1, _PER_SENTENCE)
        samples = sentences[:, 0].sum()
        for i, name in enumerate(INPUTS):
            end = "" if name == "eeg" else f"_{name}"
            own = n[2 + _PER_INPUT * i :][:_PER_INPUT]
            metrics[f"val_rouge1{end}"] = float(sentences[:, 1 + 2 * i].sum() / samples)
            metrics[f"val_retrieval{end}"] = float(sentences[:, 2 + 2 * i].sum() / samples)
            for order, score in enumerate(bleu(own[:_BLEU].tolist()), start=1):
                metrics[f"val_bleu{order}{end}"] = score
            metrics[f"val_wer{end}"] = float(own[_BLEU] / own[1])
        return metrics | _gain(sentences)


def _gain(sentences: np.ndarray) -> dict[str, float]:
    """Of the sums of each sentence: the gain, its standard error, and the one in units of it."""
    there = sentences[sentences[:, 0] > 0]
    count, samples = len(there), there[:, 0].sum()
    gains = []
    for i in range(1, len(INPUTS)):
        differences = there[:, 1] - there[:, 1 + 2 * i]
        mean = differences.sum() / samples
        left = differences - there[:, 0] * mean
        error = math.sqrt((left**2).sum() * count / max(1, count - 1)) / samples
        gains.append((float(mean), error))
    gain, error = min(gains)
    in_errors = 0.0 if gain == 0 else gain / error if error else math.copysign(math.inf, gain)
    if count < 2:
        error = in_errors = math.nan  # of one sentence nobody knows
    return {
        "val_rouge1_gain": gain,
        "val_rouge1_gain_se": error,
        "val_rouge1_gain_in_se": in_errors,
    }
