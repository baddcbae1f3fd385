"""Metrics of a split: loss, perplexity, bits per byte, token accuracy, exact match."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gearshift.models.base import Batch
from gearshift.models.common.family import Scores
from gearshift.models.language.head import IGNORE


def counts(nats: Tensor, correct: Tensor, batch: Batch) -> dict[str, Tensor]:
    """What `batch` adds to the counts; `nats` and `correct` [batch, time] are those of each token.

    An answer is exact if each of its labels, which follow each other, is the likeliest token after
    the true tokens before it. By induction this holds if and only if greedy decoding produces the
    whole answer and ends there, so no text is generated.
    """
    valid = batch["labels"] != IGNORE
    true = batch["matched"]
    if nats.device.type == "mps":  # has no float64
        nats = nats.cpu()
        correct = correct.cpu()
        valid = valid.cpu()
        true = true.cpu()
    row_nats = nats.double().sum(1)
    tokens = valid.sum(1).double()
    hits = (correct & valid).sum(1)
    begins = valid.int().diff(dim=1, prepend=torch.zeros_like(tokens[:, None]).int()) > 0
    number = begins.cumsum(1)
    answers = begins.sum(1)
    mistakes = (valid & ~correct).long()
    wrong = torch.zeros_like(number).scatter_add(1, (number - 1).clamp(min=0), mistakes)
    rows = {
        "nats": row_nats,
        "tokens": tokens,
        "correct": hits,
        "bytes": tokens * batch["bytes_per_token"],
        "exact": answers - (wrong > 0).sum(1),
        "answers": answers,
    }
    # A product, because indexing would synchronize host and device.
    sums = {name: (x * ~true).sum() for name, x in rows.items()}
    return sums | {"true_nats": (row_nats * true).sum(), "true_tokens": (tokens * true).sum()}


def scores(sums: Mapping[str, Tensor], *, has_answers: bool, is_noise: bool) -> Scores:
    """Metrics of the summed counts.

    bits_per_byte = nats per token × tokens per byte ÷ ln 2, independent of the tokenizer.
    `exact_match` exists for conversations only. `matched_gap` exists in a noise control: loss
    of permuted answers minus loss of true answers, in nats per token.
    """
    n = {name: total.item() for name, total in sums.items()}
    loss = n["nats"] / n["tokens"]
    metrics: Scores = {
        "val_loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),  # exp(710) overflows a float
        "bits_per_byte": n["nats"] / n["bytes"] / math.log(2),
        "token_accuracy": n["correct"] / n["tokens"],
    }
    if has_answers:
        metrics["exact_match"] = n["exact"] / n["answers"]
        if is_noise:
            metrics["matched_gap"] = loss - n["true_nats"] / n["true_tokens"]
    return metrics
