"""The metrics of generated sentences and of masked EEG."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from models.base import Batch
from models.common.masked_series import MaskedSeries, interpolated
from models.eeg_text.config import TOKEN_SAMPLES
from models.eeg_text.recordings import words
from models.eeg_text.texts import SentenceTexts, SentenceTokenizer

INPUTS = ("eeg", "noise", "other")
"""EEG, noise with its spectrum, EEG of another sentence."""
_BLEU = 10
_PER_INPUT = _BLEU + 1  # and word errors
_PER_SENTENCE = 1 + 2 * len(INPUTS)  # samples; for each input ROUGE-1 and retrieved ones


class TextMetric:
    """Metrics of generated sentences, compared with those from noise and from other EEG.

    Generation is free-running: no token of the true sentence is given.
    """

    def __init__(self, texts: SentenceTexts) -> None:
        self.texts = texts

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds, float64: nats, tokens, then counts by input, then by sentence.

        Always takes one forward pass of the encoder, one of the decoder for each candidate, and
        one for each generated token.
        """
        memory, valid = encode_inputs(model, batch, INPUTS)
        likelihood = self._likelihood(model, memory, valid, batch["candidates"])
        # Strictly better than all others: a tie must not favor the first candidate.
        is_best = (likelihood[:, :1] > likelihood[:, 1:]).all(1).view(len(INPUTS), -1)
        tokenizer = self.texts.tokenizer
        written = generate(model, memory, valid, self.texts.steps, tokenizer).cpu().tolist()
        texts = [words(tokenizer.decode(row)) for row in written]
        read = [words(text) for text in batch["text"]]
        rows = len(read)
        nats = -likelihood[:rows, 0].sum().item()
        tokens = (batch["candidates"][:, 0, 1:] != tokenizer.pad).sum().item()
        overall = [np.array([nats, tokens])]
        by_sentence = np.zeros((self.texts.num_evaluated, _PER_SENTENCE))
        numbers = batch["number"].cpu().numpy()
        np.add.at(by_sentence[:, 0], numbers, 1)
        for i in range(len(INPUTS)):
            pairs = list(zip(texts[i * rows : (i + 1) * rows], read, strict=True))
            errors = sum(word_errors(*pair) for pair in pairs)
            overall.append(np.append(sum(bleu_counts(*pair) for pair in pairs), errors))
            np.add.at(by_sentence[:, 1 + 2 * i], numbers, [rouge1(*pair) for pair in pairs])
            np.add.at(by_sentence[:, 2 + 2 * i], numbers, is_best[i].cpu().numpy())
        counts = np.concatenate([*overall, by_sentence.ravel()])
        is_mps = memory.device.type == "mps"  # has no float64
        return torch.from_numpy(counts).to("cpu" if is_mps else memory.device)

    def _likelihood(self, model: Module, memory: Tensor, valid: Tensor, candidates: Tensor) -> Tensor:
        """Log-likelihood [input × batch, candidate] of each candidate for each input."""
        sums = []
        for number in range(self.texts.candidate_count):
            tokens = candidates[:, number].repeat(len(INPUTS), 1)
            logits = model(None, valid, tokens[:, :-1], memory=memory).float()
            pad = self.texts.tokenizer.pad
            nats = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], ignore_index=pad, reduction="none")
            sums.append(-nats.sum(1))
        return torch.stack(sums, dim=1)

    def result(self, counts: Tensor) -> dict[str, float | None]:
        """The metrics of the summed counts; those with noise and other EEG have suffixes.

        `val_rouge1_gain` is the ROUGE-1 of EEG above the better of these two. Its standard error
        counts sentences, not samples, because all readers read the same sentences.
        """
        n = counts.cpu().double().numpy()
        metrics: dict[str, float | None] = {"val_loss": float(n[0] / n[1])}
        sentences = n[2 + _PER_INPUT * len(INPUTS) :].reshape(-1, _PER_SENTENCE)
        samples = sentences[:, 0].sum()
        for i, name in enumerate(INPUTS):
            end = "" if name == "eeg" else f"_{name}"
            input_counts = n[2 + _PER_INPUT * i :][:_PER_INPUT]
            metrics[f"val_rouge1{end}"] = float(sentences[:, 1 + 2 * i].sum() / samples)
            metrics[f"val_retrieval{end}"] = float(sentences[:, 2 + 2 * i].sum() / samples)
            for order, score in enumerate(bleu(input_counts[:_BLEU].tolist()), start=1):
                metrics[f"val_bleu{order}{end}"] = score
            metrics[f"val_wer{end}"] = float(input_counts[_BLEU] / input_counts[1])
        return metrics | _gain(sentences)


def _gain(sentences: np.ndarray) -> dict[str, float | None]:
    """The gain, its standard error, and their ratio, from the sums of each sentence.

    A single sentence has no error, and no ratio: None.
    """
    present = sentences[sentences[:, 0] > 0]
    count, samples = len(present), present[:, 0].sum()
    gains = []
    for i in range(1, len(INPUTS)):
        differences = present[:, 1] - present[:, 1 + 2 * i]
        mean = differences.sum() / samples
        residual = differences - present[:, 0] * mean
        error = math.sqrt((residual**2).sum() * count / max(1, count - 1)) / samples
        gains.append((float(mean), error))
    gain, error = min(gains)
    in_errors = 0.0 if gain == 0 else gain / error if error else math.copysign(math.inf, gain)
    has_error = count > 1
    return {
        "val_rouge1_gain": gain,
        "val_rouge1_gain_se": error if has_error else None,
        "val_rouge1_gain_in_se": in_errors if has_error else None,
    }


def masked_values(batch: Batch) -> Tensor:
    """The values to predict: masked, valid and recorded; [batch, time, 105], bool."""
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1) & batch["eeg_mask"]
    return hidden[:, :, None] & batch["recorded"][:, None, :]


def seen_inputs(batch: Batch) -> tuple[Tensor, Tensor]:
    """The EEG that the encoder sees, and its valid samples; in a noise control not the target."""
    return batch.get("seen", batch["eeg"]), batch.get("seen_mask", batch["eeg_mask"])


def _lines(batch: Batch) -> Tensor:
    seen, valid = seen_inputs(batch)
    hidden = batch["mask_target"].repeat_interleave(TOKEN_SAMPLES, dim=1)
    return interpolated(seen, valid & ~hidden)


MASKED = MaskedSeries(
    predict=lambda model, batch: model(*seen_inputs(batch), batch["mask_target"]),
    target=lambda batch: (batch["eeg"], masked_values(batch)),
    lines=_lines,
)


def encode_inputs(model: Module, batch: Batch, inputs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The encoder outputs for `inputs`, concatenated, and their masks of valid samples.

    [input × batch, time / 4, width] and [input × batch, time]. Cached features are used if
    present. Collective if the model is sharded.
    """
    valid = torch.cat([batch[f"{name}_mask"] for name in inputs])
    if f"{inputs[0]}_memory" in batch:
        return torch.cat([batch[f"{name}_memory"] for name in inputs]), valid
    eeg = torch.cat([batch[name] for name in inputs])
    if f"{inputs[0]}_pool" not in batch:
        return model(eeg, valid), valid
    windows = torch.cat([batch[f"{name}_windows"] for name in inputs])
    pools, before = [], 0
    for name in inputs:
        pool = batch[f"{name}_pool"]
        pools.append(torch.where(pool >= 0, pool + before, pool))
        before += len(batch[name]) * pool.shape[1]
    return model(eeg, windows, pool=torch.cat(pools)), valid


@torch.no_grad()
def generate(
    model: Module, memory: Tensor, valid: Tensor, steps: int, tokenizer: SentenceTokenizer
) -> Tensor:
    """Greedy generation of `steps` tokens, [batch, steps].

    Always `steps` forward passes over one shape: ranks with shards stay in step, and a compiled
    model is compiled once. Collective if the model is sharded.
    """
    shape = (memory.shape[0], steps)
    ids = torch.full(shape, tokenizer.pad, dtype=torch.int64, device=memory.device)
    ids[:, 0] = tokenizer.start
    written = torch.full_like(ids, tokenizer.pad)
    for at in range(steps):
        # The tokens after `at` have no effect: attention is causal.
        logits = model(None, valid, ids, memory=memory)[:, at].float()
        written[:, at] = logits.argmax(-1)
        if at + 1 < steps:
            ids[:, at + 1] = written[:, at]
    return written


ORDERS = 4


def rouge1(written: Sequence[str], read: Sequence[str]) -> float:
    """F1 of the shared words, 0 to 1. Source: Lin, ROUGE, 2004."""
    both = sum((Counter(written) & Counter(read)).values())
    return 2 * both / (len(written) + len(read)) if both else 0.0


def bleu_counts(written: Sequence[str], read: Sequence[str]) -> np.ndarray:
    """What one sentence adds to the BLEU counts of a corpus, float64 [10]; see `bleu`.

    Words written, words read, then for each of four orders matching and all n-grams. Source:
    Papineni et al., BLEU, 2002.
    """
    counts = [len(written), len(read)]
    for order in range(1, ORDERS + 1):
        ours, theirs = _grams(written, order), _grams(read, order)
        counts += [sum((ours & theirs).values()), sum(ours.values())]
    return np.array(counts, dtype=np.float64)


def bleu(counts: Sequence[float]) -> list[float]:
    """BLEU-1 to BLEU-4 with brevity penalty, 0 to 1, of the summed counts of a corpus.

    Without smoothing: an order without a match is 0.
    """
    written, read = counts[0], counts[1]
    if written == 0:
        return [0.0] * ORDERS
    penalty = min(1.0, float(np.exp(1 - read / written)))
    scores, product = [], 1.0
    for order in range(1, ORDERS + 1):
        matching, total = counts[2 * order], counts[2 * order + 1]
        product *= matching / total if total else 0.0
        scores.append(penalty * product ** (1 / order))
    return scores


def word_errors(written: Sequence[str], read: Sequence[str]) -> int:
    """The word edit distance: insertions, deletions and substitutions."""
    row = list(range(len(read) + 1))
    for i, word in enumerate(written, start=1):
        before, row[0] = row[0], i
        for j, true in enumerate(read, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != true))
    return row[-1]


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
