"""What is told of a response: its shape, wave V, the kind of hearing loss, the threshold."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.abr.config import CLASSES, POINTS, Size
from models.abr.network.attention import EncoderLayer
from models.abr.network.convolution import AttentionPooling, TimeConv


class SignalHead(nn.Module):
    """The response, from one pooled vector, and what a convolution adds to it."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        base = size.base
        self.layers = nn.Sequential(
            *(EncoderLayer(base, 1, 2, kernel, size.dropout) for _ in range(2))
        )
        self.pooling = AttentionPooling(base)
        self.shape = _chain(base, 2 * base, 2 * base, POINTS)
        self.residual = nn.Sequential(
            TimeConv(1, 16, 7), nn.GELU(), TimeConv(16, 8, 5), nn.GELU(), TimeConv(8, 1, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; gives [batch, 1, 200]."""
        # Turned, and not given a last axis: by its strides torch would take that for channels-last,
        # and DDP would have to copy the gradient of the first convolution.
        shape = self.shape(self.pooling(self.layers(x)))[:, None].mT
        return (shape + self.residual(shape)).mT


class PeakHead(nn.Module):
    """Wave V: the logit of its existence, its latency and its amplitude, of which some are asked.

    `trained` names them; the others keep their first weights.
    """

    def __init__(self, size: Size, trained: frozenset[str]) -> None:
        super().__init__()
        base, half = size.base, size.base // 2
        self.pooling = AttentionPooling(base)
        self.shared = _chain(base, base, base, last=nn.GELU())
        self.exists = _chain(base, half, 1)
        self.latency = _chain(base, base, half, 1)
        self.amplitude = _chain(base, base, half, 1)
        self.asked = tuple(name for name in ("exists", "latency", "amplitude") if name in trained)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; gives [batch, asked], in the order of `asked`."""
        told = self.shared(self.pooling(x))
        return torch.cat([getattr(self, name)(told) for name in self.asked], dim=-1)


class ClassHead(nn.Module):
    """Logits of the kinds of hearing loss, divided by a temperature that is learnt."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = size.base
        self.pooling = AttentionPooling(base)
        self.shared = nn.Sequential(
            *(nn.Linear(base, base), nn.GELU(), nn.LayerNorm(base)),
            *(nn.Linear(base, base), nn.GELU(), nn.LayerNorm(base)),
        )
        self.logits = _chain(base, base // 2, CLASSES)
        # Its logarithm, so that it stays positive without a clamp.
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; gives [batch, 5]."""
        logits = self.logits(self.shared(self.pooling(x)))
        return logits * torch.exp(-self.log_temperature)


class ThresholdHead(nn.Module):
    """The threshold in dB, never negative."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.pooling = AttentionPooling(size.base)
        self.level = _chain(size.base, size.base, size.base // 2, last=nn.GELU())
        self.last = nn.Linear(size.base // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; gives [batch]."""
        return F.softplus(self.last(self.level(self.pooling(x))).float()).squeeze(-1)


def _chain(*widths: int, last: nn.Module | None = None) -> nn.Sequential:
    """Linear layers with GELU between them, and `last` behind."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1], *([last] if last is not None else []))
