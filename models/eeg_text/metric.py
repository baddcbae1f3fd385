"""The metrics of generated sentences and of masked EEG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from gearshift.models.base import Batch
from gearshift.models.common.bleu import ORDER, Bleu
from gearshift.models.common.family import Scores, Sums
from gearshift.models.eeg_text.config import TOKEN_SAMPLES
from gearshift.models.eeg_text.dataset import masked_values
from gearshift.models.eeg_text.masked_series import interpolated, masked_counts
from gearshift.models.eeg_text.recordings import words
from gearshift.models.eeg_text.texts import SentenceTexts, SentenceTokenizer

INPUTS = ("eeg", "noise", "other")
"""EEG, noise with its spectrum, EEG of another sentence: `compared` of a batch, in this order."""


class TextMetric(Sums):
    """Metrics of generated sentences, compared with those from noise and from other EEG.

    Generation is free-running: no token of the true sentence is given.
    """

    def __init__(self, texts: SentenceTexts) -> None:
        self.texts = texts
        self.bleu = Bleu("none", "none")
        super().__init__(self._sums, partial(text_scores, self.bleu))

    def _sums(self, model: Module, batch: Batch) -> dict[str, Tensor | float]:
        """Nats and tokens; by input the counts of BLEU and word errors; by sentence its samples,
        and for each input ROUGE-1 and how often it was retrieved.

        Always takes one forward pass of the encoder, one of the decoder for each candidate, and
        one for each generated token.
        """
        tokenizer = self.texts.tokenizer
        candidates = batch["candidates"]
        memory, valid = encode_inputs(model, batch, "compared")
        of_candidates = []
        for tokens in candidates.repeat(len(INPUTS), 1, 1).unbind(1):
            logits = model(None, valid, tokens[:, :-1], memory=memory).float().transpose(1, 2)
            nats = F.cross_entropy(
                logits, tokens[:, 1:], ignore_index=tokenizer.pad, reduction="none"
            )
            of_candidates.append(-nats.sum(1))
        likelihood = torch.stack(of_candidates, dim=1)  # [input × batch, candidate]
        # Strictly better than all others: a tie must not favor the first candidate.
        is_best = (likelihood[:, :1] > likelihood[:, 1:]).all(1).view(len(INPUTS), -1).cpu().numpy()
        written = generate(model, memory, valid, self.texts.steps, tokenizer).cpu().tolist()
        texts = [words(tokenizer.decode(row)) for row in written]
        read = [words(t) for t in batch["text"]]
        overall: list[list[float]] = []
        numbers = batch["number"].cpu().numpy()
        by_sentence = np.zeros((self.texts.num_evaluated, 1 + 2 * len(INPUTS)))
        np.add.at(by_sentence[:, 0], numbers, 1)
        for i in range(len(INPUTS)):
            ours = texts[i * len(read) : (i + 1) * len(read)]
            overall.append(self.bleu.counts(*(list(map(" ".join, side)) for side in (ours, read))))
            overall[-1].append(sum(map(word_errors, ours, read)))
            np.add.at(by_sentence[:, 1 + 2 * i], numbers, list(map(rouge1, ours, read)))
            np.add.at(by_sentence[:, 2 + 2 * i], numbers, is_best[i])
        return {
            "nats": -likelihood[: len(read), 0].sum(),
            "tokens": (candidates[:, 0, 1:] != tokenizer.pad).sum(),
            "overall": torch.tensor(overall, dtype=torch.float64),
            "sentences": torch.from_numpy(by_sentence),
        }


def text_scores(bleu: Bleu, sums: Mapping[str, Tensor]) -> Scores:
    """The metrics of the sums of TextMetric; those with noise and other EEG have suffixes.

    `val_rouge1_gain` is the ROUGE-1 of EEG above the better of these two. Its standard error
    counts sentences, not samples, because all readers read the same sentences.
    """
    metrics: Scores = {"val_loss": float(sums["nats"] / sums["tokens"])}
    sentences = sums["sentences"].view(-1, 1 + 2 * len(INPUTS)).cpu().numpy()
    overall = sums["overall"].view(len(INPUTS), -1).tolist()
    means = sentences[:, 1:].sum(0) / sentences[:, 0].sum()
    for i, name in enumerate(INPUTS):
        end = "" if name == "eeg" else f"_{name}"
        (*counts, errors) = overall[i]
        metrics[f"val_rouge1{end}"], metrics[f"val_retrieval{end}"] = means[
            2 * i : 2 * i + 2
        ].tolist()
        for order in range(1, ORDER + 1):
            metrics[f"val_bleu{order}{end}"] = bleu.score(counts, order) / 100
        metrics[f"val_wer{end}"] = errors / counts[-1]
    return metrics | gain(sentences)


def gain(sentences: np.ndarray) -> Scores:
    """The gain, its standard error, and their ratio, from the sums of each sentence.

    A single sentence has no error, and no ratio: None.
    """
    present = sentences[sentences[:, 0] > 0]
    count = len(present)
    samples = present[:, 0].sum()
    gains = []
    for i in range(1, len(INPUTS)):
        differences = present[:, 1] - present[:, 1 + 2 * i]
        mean = differences.sum() / samples
        residual = differences - present[:, 0] * mean
        error = math.sqrt((residual**2).sum() * count / max(1, count - 1)) / samples
        gains.append((float(mean), error))
    best, error = min(gains)
    in_errors = 0.0 if best == 0 else best / error if error else math.copysign(math.inf, best)
    of_error = {"val_rouge1_gain_se": error, "val_rouge1_gain_in_se": in_errors}
    return {"val_rouge1_gain": best, **(of_error if count > 1 else dict.fromkeys(of_error))}


def masked_sums(guess: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The sums of a prediction of all values, and of the interpolation of what the encoder sees."""
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1)
    lines = interpolated(batch["seen"], batch["seen_mask"] & ~hidden)
    return {"masked": masked_counts(batch["eeg"], guess, lines, masked_values(batch))}


def predict_masked(model: Module, batch: Batch) -> Tensor:
    """Predictions of all samples [batch, time, 105]."""
    guess: Tensor = model(batch["seen"], batch["seen_mask"], batch["mask_target"])
    return guess.float()


def encode_inputs(model: Module, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
    """The encoder outputs [input, time / 4, width] for the inputs `name` of a batch, and their masks
    of valid samples [input, time].

    Cached features are used if present. Collective if the model is sharded.
    """
    valid: Tensor = batch[f"{name}_mask"]
    if (memory := batch.get(f"{name}_memory")) is None:
        windows = batch.get(f"{name}_windows", valid)
        pool = batch.get(f"{name}_pool")
        memory = model(batch[name], windows, pool=pool)
    return memory, valid


@torch.no_grad()
def generate(
    model: Module, memory: Tensor, valid: Tensor, steps: int, tokenizer: SentenceTokenizer
) -> Tensor:
    """Greedy generation of `steps` tokens, [batch, steps].

    Always `steps` forward passes over one shape: ranks with shards stay in step, and a compiled
    model is compiled once. Collective if the model is sharded.
    """
    ids = torch.full(
        (len(memory), steps + 1), tokenizer.pad, dtype=torch.int64, device=memory.device
    )
    ids[:, 0] = tokenizer.start
    for at in range(steps):
        # The tokens after `at` have no effect: attention is causal.
        ids[:, at + 1] = model(None, valid, ids[:, :-1], memory=memory)[:, at].float().argmax(-1)
    return ids[:, 1:]


def rouge1(written: Sequence[str], read: Sequence[str]) -> float:
    """F1 of the shared words, 0 to 1. Source: Lin, ROUGE, 2004."""
    both = sum((Counter(written) & Counter(read)).values())
    return 2 * both / (len(written) + len(read)) if both else 0.0


def word_errors(written: Sequence[str], read: Sequence[str]) -> int:
    """The word edit distance: insertions, deletions and substitutions."""
    row = list(range(len(read) + 1))
    for i, word in enumerate(written, start=1):
        before = row[0]
        row[0] = i
        for j, true in enumerate(read, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != true))
    return row[-1]
