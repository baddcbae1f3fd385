"""Metrics of a split: loss, perplexity, bits per byte, token accuracy, exact match."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.language.head import IGNORE

NAMES = ("nats", "tokens", "correct", "bytes", "exact", "rows", "true_nats", "true_tokens")


class LanguageMetric:
    """Counts over tokens and rows (NAMES); one forward pass per update."""

    def __init__(self, inputs: tuple[str, ...], answers: bool, noise: bool) -> None:
        """`inputs`: keys of a batch that the model takes in addition to input_ids and labels."""
        self.inputs, self.answers, self.noise = inputs, answers, noise

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Counts of `batch`: float64, in the order of NAMES.

        A row is exact if each label is the likeliest token after the true tokens before it. By
        induction this holds if and only if greedy decoding produces the whole answer and ends
        there, so no text is generated.
        """
        extra = {name: batch[name] for name in self.inputs}
        nats, correct = model(batch["input_ids"], labels=batch["labels"], measure=True, **extra)
        valid, true = batch["labels"] != IGNORE, batch["matched"]
        if nats.device.type == "mps":  # has no float64
            nats, correct, valid, true = nats.cpu(), correct.cpu(), valid.cpu(), true.cpu()
        row_nats, row_tokens = nats.double().sum(1), valid.sum(1)
        row_correct = (correct & valid).sum(1)
        exact = (row_correct == row_tokens) & (row_tokens > 0)
        text_bytes = batch["text_bytes"].to(nats.device)
        rows = torch.ones_like(text_bytes)
        plain = (row_nats, row_tokens, row_correct, text_bytes, exact, rows)
        # A product, because indexing would synchronize host and device.
        counts = [(x.double() * ~true).sum() for x in plain]
        counts += [(x.double() * true).sum() for x in (row_nats, row_tokens)]
        return torch.stack(counts)

    def result(self, counts: Tensor) -> dict[str, float]:
        """Metrics of the summed counts.

        bits_per_byte = nats per token × tokens per byte ÷ ln 2, independent of the tokenizer.
        `exact_match` exists for conversations only. `matched_gap` exists in a noise control: loss
        of permuted answers minus loss of true answers, in nats per token.
        """
        n = dict(zip(NAMES, counts.tolist(), strict=True))
        loss = n["nats"] / n["tokens"]
        metrics = {
            "val_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # exp(710) overflows a float
            "bits_per_byte": loss * n["tokens"] / n["bytes"] / math.log(2),
            "token_accuracy": n["correct"] / n["tokens"],
        }
        if self.answers:
            metrics["exact_match"] = n["exact"] / n["rows"]
        if self.noise:
            metrics["matched_gap"] = loss - n["true_nats"] / n["true_tokens"]
        return metrics
