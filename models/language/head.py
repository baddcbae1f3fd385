"""Output layer: logits, or the loss computed chunk by chunk without all logits in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORE = -100
"""Label excluded from the loss."""

CHUNK = 2**26
"""Logits in memory at one time: 256 MiB in float32."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of matrix products with `tensor`."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


def token_scores(
    outputs: Tensor, labels: Tensor, rows: int, logits_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each token in nats (0 where ignored), and whether the argmax is correct.

    `outputs` [batch, time, any], of which `logits_of` makes logits for `rows` tokens at a time;
    `labels` [batch, time]. float32 and bool, [batch, time].
    """
    nats = []
    correct = []
    chunks = outputs.flatten(0, 1).split(rows)
    for chunk, target in zip(chunks, labels.flatten().split(rows), strict=True):
        logits = logits_of(chunk)
        loss = F.cross_entropy(
            logits.float(),
            target,
            ignore_index=IGNORE,
            reduction="none",
        )
        nats.append(loss)
        correct.append(logits.argmax(-1) == target)
    return torch.cat(nats).view(labels.shape), torch.cat(correct).view(labels.shape)


class _ChunkedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear layer's output; computes its gradients in the forward pass.

    The loss is a scalar, so backward only multiplies the gradients by the incoming scalar. Each
    chunk of logits is freed before the next one and nothing is computed twice. Source: Hsu et al.,
    Liger Kernel: Efficient Triton Kernels for LLM Training, 2024, section 3.2.

    Not torch.nn.functional.linear_cross_entropy: in bfloat16 it rounds the summed loss to 8 bits
    and adds up the weight gradient in bfloat16, and it has no label smoothing in chunks.
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
        chunk_loss: Callable[..., Tensor],
    ) -> Tensor:
        # Detached: evaluation shares the compiled graphs.
        hidden = hidden.detach()
        narrow = weight.detach().to(low)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden)
        weight_gradient = None
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.zeros_like(weight, dtype=torch.float32)
        for begin in range(0, len(labels), rows):
            chunk = slice(begin, begin + rows)
            total += chunk_loss(
                hidden[chunk].to(low),
                narrow,
                labels[chunk],
                smoothing,
                hidden_gradient[chunk],
                weight_gradient,
            )
        if weight_gradient is not None:
            weight_gradient = weight_gradient.to(weight.dtype)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    def backward(ctx: Any, incoming: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight = ctx.saved_tensors
        if weight is not None:
            weight = weight * incoming
        return hidden * incoming, weight, None, None, None, None, None


def _chunk_loss(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    smoothing: float,
    hidden_gradient: Tensor,
    weight_gradient: Tensor | None,
) -> Tensor:
    """Loss of a chunk, summed, float32; writes one gradient, and adds to the other if there is one.

    The gradient of the logits overwrites them: on a GPU, reading and writing logits takes most of
    the time beside the matrix products.
    """
    logits = hidden @ weight.t()
    valid = (labels != IGNORE)[:, None]
    logp = logits.log_softmax(-1, dtype=torch.float32)
    index = labels.clamp(min=0)[:, None]
    picked = logp.gather(-1, index)
    loss = -(picked * valid).sum() * (1 - smoothing)
    share = smoothing / logits.shape[-1]
    if smoothing:
        loss = loss - (logp.mean(-1, keepdim=True) * valid).sum() * smoothing
    gradient = torch.exp(logp, out=logits)
    del logp
    if smoothing:
        gradient -= share
    # In float32: a likely target leaves only the last bits of its probability.
    target = picked.exp() - (1 - smoothing + share)
    gradient.scatter_(-1, index, target.to(gradient.dtype))
    # Ignored labels are excluded here: these have fewer columns than the logits.
    hidden_gradient.copy_((gradient @ weight) * valid)
    if weight_gradient is not None:
        weight_gradient += gradient.t() @ (hidden * valid)
    return loss


class Head(nn.Module):
    """Linear layer without bias to the vocabulary; one module, so that engines gather it once."""

    compiles_parts = True

    def __init__(self, weight: nn.Parameter, smoothing: float, chunk: int = CHUNK) -> None:
        super().__init__()
        self.weight = weight
        self.smoothing = smoothing
        self.rows = max(1, chunk // weight.shape[0])
        self.chunk_loss = _chunk_loss

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the loss of a chunk: a graph of all chunks would grow with their number."""
        self.chunk_loss = torch.compile(_chunk_loss, *args, **options)

    def forward(
        self, hidden: Tensor, labels: Tensor | None = None, measure: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Output of Transformer.forward from `hidden` [batch, time, width]."""
        if labels is None:
            return F.linear(hidden, self.weight)
        if measure:
            return token_scores(hidden, labels, self.rows, lambda some: F.linear(some, self.weight))
        return _ChunkedLoss.apply(
            hidden.flatten(0, 1),
            self.weight,
            labels.flatten(),
            self.smoothing,
            compute_dtype(hidden),
            self.rows,
            self.chunk_loss,
        )
