"""What is measured on a split: loss, perplexity, bits per byte, accuracy, exact answers."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.language.head import IGNORE

NAMES = ("nats", "tokens", "right", "bytes", "exact", "rows", "true_nats", "true_tokens")


class LanguageMetric:
    """Counts over tokens and rows; see NAMES. Every update takes one forward pass."""

    def __init__(self, inputs: tuple[str, ...], answers: bool, noise: bool) -> None:
        """`inputs` names what of a batch the model takes beside input_ids and labels."""
        self.inputs, self.answers, self.noise = inputs, answers, noise

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds to the counts: float64, in the order of NAMES.

        A row counts as exact if each of its labels is the likeliest token after the true ones
        before it. By induction that is the case if and only if greedy decoding gives the whole
        answer and ends there; so no answer need be generated, and the figure is of all rows.
        """
        extra = {name: batch[name] for name in self.inputs}
        nats, right = model(batch["input_ids"], labels=batch["labels"], measure=True, **extra)
        valid, true = batch["labels"] != IGNORE, batch["matched"]
        if nats.device.type == "mps":  # has no float64
            nats, right, valid, true = nats.cpu(), right.cpu(), valid.cpu(), true.cpu()
        row_nats, row_tokens = nats.double().sum(1), valid.sum(1)
        row_right = (right & valid).sum(1)
        exact = (row_right == row_tokens) & (row_tokens > 0)
        text_bytes = batch["text_bytes"].to(nats.device)
        rows = torch.ones_like(text_bytes)
        plain = (row_nats, row_tokens, row_right, text_bytes, exact, rows)
        # A product and no selection, which would make the host wait for the device.
        counts = [(x.double() * ~true).sum() for x in plain]
        counts += [(x.double() * true).sum() for x in (row_nats, row_tokens)]
        return torch.stack(counts)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts.

        bits_per_byte = nats per token × tokens per byte ÷ ln 2, which does not depend on the
        tokenizer. `exact_match` only where rows are answers. In a noise control `matched_gap` is
        how many nats per token lower the loss of true answers is than that of permuted ones.
        """
        n = dict(zip(NAMES, counts.tolist(), strict=True))
        loss = n["nats"] / n["tokens"]
        metrics = {
            "val_loss": loss,
            "perplexity": math.exp(min(loss, 700.0)),  # exp(710) is more than a float holds
            "bits_per_byte": loss * n["tokens"] / n["bytes"] / math.log(2),
            "token_accuracy": n["right"] / n["tokens"],
        }
        if self.answers:
            metrics["exact_match"] = n["exact"] / n["rows"]
        if self.noise:
            metrics["matched_gap"] = loss - n["true_nats"] / n["true_tokens"]
        return metrics
