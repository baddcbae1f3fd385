"""Output layer: logits, or the loss computed chunk by chunk without all logits in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100
"""Label excluded from the loss."""

CHUNK = 2**26
"""Logits in memory at one time: 256 MiB in float32."""


def token_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each token in nats (0 where ignored), and whether the argmax is correct.

    `logits` [tokens, vocabulary], `labels` [tokens]; float32 and bool, [tokens].
    """
    nats = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    return nats, logits.argmax(-1) == labels


class _ChunkedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear layer's output; computes its gradients in the forward pass.

    The loss is a scalar, so backward only multiplies the gradients by the incoming scalar. Each
    chunk of logits is freed before the next one and nothing is computed twice. Source: Hsu et al.,
    Liger Kernel: Efficient Triton Kernels for LLM Training, 2024, section 3.2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        smoothing: float,
        low: torch.dtype,
        rows: int,
    ) -> Tensor:
        narrow = weight.to(low)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, hidden.shape[0], rows):
            chunk, target = hidden[start : start + rows].to(low), labels[start : start + rows]
            loss, gradient = _loss_and_gradient(chunk @ narrow.t(), target, smoothing)
            total = total + loss
            gradient = gradient.to(low)
            hidden_gradient[start : start + rows] = gradient @ narrow
            weight_gradient += gradient.t() @ chunk
        ctx.save_for_backward(hidden_gradient, weight_gradient.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        return hidden * incoming, weight * incoming, None, None, None, None


def _loss_and_gradient(logits: Tensor, labels: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk and its gradient with respect to the logits, float32."""
    logp = logits.float().log_softmax(-1)
    valid = (labels != IGNORE)[:, None]
    index = labels.clamp(min=0)[:, None]
    loss = -(logp.gather(-1, index) * valid).sum() * (1 - smoothing)
    if smoothing:
        loss = loss - (logp.mean(-1, keepdim=True) * valid).sum() * smoothing
    gradient = logp.exp_()
    if smoothing:
        gradient -= smoothing / logits.shape[-1]
    gradient.scatter_add_(-1, index, torch.full_like(index, smoothing - 1.0, dtype=gradient.dtype))
    return loss, gradient.mul_(valid)


class Head(nn.Module):
    """Linear layer without bias to the vocabulary; one module, so that engines gather it once."""

    def __init__(self, weight: nn.Parameter, smoothing: float, chunk: int = CHUNK) -> None:
        super().__init__()
        self.weight = weight
        self.smoothing = smoothing
        self.rows = max(1, chunk // weight.shape[0])

    def forward(
        self, hidden: Tensor, labels: Tensor | None, measure: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Output of Transformer.forward from `hidden` [batch, time, width]."""
        if labels is None:
            return F.linear(hidden, self.weight)
        flat, targets = hidden.flatten(0, 1), labels.flatten()
        if measure:
            return self._measure(flat, targets, labels.shape)
        device = hidden.device.type
        low = hidden.dtype
        if torch.is_autocast_enabled(device):
            low = torch.get_autocast_dtype(device)
        return _ChunkedLoss.apply(flat, self.weight, targets, self.smoothing, low, self.rows)

    def _measure(self, hidden: Tensor, labels: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor]:
        scores = [
            token_scores(F.linear(h, self.weight), y)
            for h, y in zip(hidden.split(self.rows), labels.split(self.rows), strict=True)
        ]
        nats, correct = (torch.cat(parts).view(shape) for parts in zip(*scores, strict=True))
        return nats, correct
