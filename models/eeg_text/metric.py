"""The metrics of generated sentences and of masked EEG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from gearshift.models.base import Batch
from gearshift.models.common.bleu import ORDER, Bleu
from gearshift.models.common.family import Scores, Sums
from gearshift.models.eeg_text.config import TOKEN_SAMPLES
from gearshift.models.eeg_text.dataset import masked_values
from gearshift.models.eeg_text.masked_series import interpolate, masked_counts
from gearshift.models.eeg_text.recordings import words
from gearshift.models.eeg_text.texts import SentenceTexts, SentenceTokenizer

Words = Sequence[str]
_LEAST_ERROR = 1e-12
"""Of a gain that is the same for all sentences."""
INPUTS = ("", "_noise", "_other")
"""EEG, noise with its spectrum, EEG of another sentence: `compared` of a batch, in this order. Ends
of the names of their metrics."""


def text_metric(texts: SentenceTexts) -> Sums:
    """Metrics of generated sentences, compared with those from noise and from other EEG.

    Generation is free-running: no token of the true sentence is given.
    """
    bleu = Bleu("none", "none")
    return Sums(partial(_text_sums, texts, bleu), partial(text_scores, bleu))


def _text_sums(
    texts: SentenceTexts,
    bleu: Bleu,
    model: Module,
    batch: Batch,
) -> dict[str, Tensor]:
    """Nats and tokens; by input how often the sentence was retrieved, the counts of BLEU and word
    errors; by sentence its samples, and the ROUGE-1 of each input.

    Always takes one forward pass of the encoder, one of the decoder for each candidate, and one
    for each generated token.
    """
    tokenizer = texts.tokenizer
    candidates = batch["candidates"]
    memory, valid = encode_inputs(model, batch, "compared")
    surprises = []
    for text in candidates.repeat(len(INPUTS), 1, 1).unbind(1):
        logits = model(None, valid, text[:, :-1], memory=memory)
        of_tokens = F.cross_entropy(
            logits.float().mT,
            text[:, 1:],
            ignore_index=tokenizer.pad,
            reduction="none",
        )
        surprises.append(of_tokens.sum(1))
    nats = torch.stack(surprises, dim=1)  # [input × batch, candidate]
    # Strictly better than all others: a tie must not favor the first candidate.
    is_best = (nats[:, :1] < nats[:, 1:]).all(1)
    retrieved = is_best.view(len(INPUTS), -1).sum(1).tolist()
    tokens = generate(model, memory, valid, texts.steps, tokenizer)
    generated = [words(tokenizer.decode(row)) for row in tokens.tolist()]
    read = [words(text) for text in batch["text"]]
    count = len(read)

    overall = []
    columns = [[1.0] * count]
    for i in range(len(INPUTS)):
        of_input = generated[i * count : (i + 1) * count]
        overall.append([retrieved[i], *error_counts(bleu, of_input, read)])
        columns.append(list(map(rouge1, of_input, read)))
    by_sentence = np.zeros((texts.num_evaluated, len(columns)))
    np.add.at(by_sentence, batch["number"].cpu().numpy(), np.transpose(columns))
    return {
        "nats": nats[:count, 0].sum(),
        "tokens": (candidates[:, 0, 1:] != tokenizer.pad).sum(),
        "overall": torch.tensor(overall),
        "sentences": torch.from_numpy(by_sentence),
    }


def error_counts(
    bleu: Bleu,
    written: Sequence[Words],
    read: Sequence[Words],
) -> list[float]:
    """The counts of BLEU, and the number of word errors."""
    counts = bleu.counts(map(" ".join, written), map(" ".join, read))
    return [*counts, sum(map(word_errors, written, read))]


def error_scores(
    bleu: Bleu,
    counts: Sequence[float],
    end: str = "",
) -> dict[str, float]:
    """The metrics of summed `error_counts`, each name with `end`."""
    *of_bleu, errors = counts
    metrics = {f"val_wer{end}": errors / of_bleu[-1]}
    for order in range(1, ORDER + 1):
        metrics[f"val_bleu{order}{end}"] = bleu.score(of_bleu, order) / 100
    return metrics


def text_scores(bleu: Bleu, sums: Mapping[str, Tensor]) -> Scores:
    """The metrics of the sums of `text_metric`; those with noise and other EEG have suffixes.

    `val_rouge1_gain` is the ROUGE-1 of EEG above the better of these two. Its standard error
    counts sentences, not samples, because all readers read the same sentences.
    """
    metrics: Scores = {"val_loss": float(sums["nats"] / sums["tokens"])}
    sentences = sums["sentences"].view(-1, 1 + len(INPUTS)).cpu().numpy()
    samples, *rouge = sentences.sum(0).tolist()
    overall = sums["overall"].view(len(INPUTS), -1).tolist()
    for i, end in enumerate(INPUTS):
        retrieved, *counts = overall[i]
        metrics[f"val_rouge1{end}"] = rouge[i] / samples
        metrics[f"val_retrieval{end}"] = retrieved / samples
        metrics |= error_scores(bleu, counts, end)
    return metrics | gain(sentences)


def gain(sentences: ndarray) -> Scores:
    """The gain, its standard error, and their ratio, from the sums of each sentence.

    A single sentence has no error, and no ratio: None.
    """
    present = sentences[sentences[:, 0] > 0]
    count = len(present)
    samples, eeg, *others = present.T
    gains = []
    for other in others:
        differences = eeg - other
        mean = differences.sum() / samples.sum()
        # The standard error of a ratio of sums over sentences, by its residuals.
        residual = differences - samples * mean
        variance = (residual**2).sum() * count / max(1, count - 1)
        gains.append((float(mean), math.sqrt(variance) / samples.sum()))
    # Noise and other EEG are both baselines: the smaller gain counts.
    best, error = min(gains)
    scores: Scores = {
        "val_rouge1_gain": best,
        "val_rouge1_gain_se": None,
        "val_rouge1_gain_in_se": None,
    }
    if count > 1:
        scores["val_rouge1_gain_se"] = float(error)
        scores["val_rouge1_gain_in_se"] = best / max(float(error), _LEAST_ERROR)
    return scores


def masked_sums(model: Any, batch: Batch) -> dict[str, Tensor]:
    """The sums of a prediction of all values, and of the interpolation of what the encoder sees."""
    guess = predict_masked(model, batch)
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1)
    lines = interpolate(batch["seen"], batch["seen_mask"] & ~hidden)
    return {"masked": masked_counts(batch["eeg"], guess, lines, masked_values(batch))}


def predict_masked(model: Any, batch: Batch) -> Tensor:
    """Predictions of all samples [batch, time, 105]."""
    guess: Tensor = model(batch["seen"], batch["seen_mask"], batch["mask_target"])
    return guess.float()


def encode_inputs(
    model: Module,
    batch: Batch,
    name: str,
) -> tuple[Tensor, Tensor]:
    """The encoder outputs [input, time / 4, width] for the inputs `name` of a batch, and their
    masks of valid samples [input, time].

    Cached features are used if present. Collective if the model is sharded.
    """
    valid: Tensor = batch[f"{name}_mask"]
    memory = batch.get(f"{name}_memory")
    if memory is None:
        windows = batch.get(f"{name}_windows", valid)
        memory = model(batch[name], windows, pool=batch.get(f"{name}_pool"))
    return memory, valid


@torch.no_grad()
def generate(
    model: Module,
    memory: Tensor,
    valid: Tensor,
    steps: int,
    tokenizer: SentenceTokenizer,
) -> Tensor:
    """Greedy generation of `steps` tokens, [batch, steps].

    Always `steps` forward passes over one shape: ranks with shards stay in step, and a compiled
    model is compiled once. Collective if the model is sharded.
    """
    ids = torch.full((len(memory), steps + 1), tokenizer.pad, device=memory.device)
    ids[:, 0] = tokenizer.start
    for step in range(steps):
        # The tokens after this step have no effect: attention is causal.
        logits = model(None, valid, ids[:, :-1], memory=memory)
        ids[:, step + 1] = logits[:, step].float().argmax(-1)
    return ids[:, 1:]


def rouge1(written: Words, read: Words) -> float:
    """F1 of the shared words, 0 to 1. Source: Lin, ROUGE, 2004."""
    shared = Counter(written) & Counter(read)
    return 2 * shared.total() / max(1, len(written) + len(read))


def word_errors(written: Words, read: Words) -> int:
    """The word edit distance: insertions, deletions and substitutions."""
    row = list(range(len(read) + 1))
    for count, word in enumerate(written, start=1):
        above = row
        row = [count]
        for j, true in enumerate(read):
            row.append(min(row[j] + 1, above[j + 1] + 1, above[j] + (word != true)))
    return row[-1]
