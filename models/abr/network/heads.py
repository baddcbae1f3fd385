"""The heads: waveform, wave V, hearing-loss class and threshold."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.abr.config import CLASSES, POINTS, Size
from models.abr.network.attention import EncoderLayer
from models.abr.network.convolution import AttentionPooling, TimeConv

SIGNAL_LAYERS = 2


class SignalHead(nn.Module):
    """The waveform, from one pooled vector and a convolutional residual."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        base = size.base
        self.layers = nn.Sequential(
            *(EncoderLayer(base, 1, 2, kernel, size.dropout) for _ in range(SIGNAL_LAYERS))
        )
        self.pooling = AttentionPooling(base)
        self.shape = _mlp(base, 2 * base, 2 * base, POINTS)
        self.residual = nn.Sequential(
            TimeConv(1, 16, 7), nn.GELU(), TimeConv(16, 8, 5), nn.GELU(), TimeConv(8, 1, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 1, 200]."""
        # Transposed instead of unsqueezed at the end: torch would take those strides for
        # channels-last, and DDP would copy the gradient of the first convolution.
        shape = self.shape(self.pooling(self.layers(x)))[:, None].mT
        return (shape + self.residual(shape)).mT


class PeakHead(nn.Module):
    """Wave V: the logit of its existence, its latency and its amplitude.

    Only those in `trained` are computed; the others keep their initial weights.
    """

    def __init__(self, size: Size, trained: frozenset[str]) -> None:
        super().__init__()
        base, half = size.base, size.base // 2
        self.pooling = AttentionPooling(base)
        self.shared = _mlp(base, base, base, last=nn.GELU())
        self.exists = _mlp(base, half, 1)
        self.latency = _mlp(base, base, half, 1)
        self.amplitude = _mlp(base, base, half, 1)
        self.output_names = tuple(
            name for name in ("exists", "latency", "amplitude") if name in trained
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, output], in the order of `output_names`."""
        shared = self.shared(self.pooling(x))
        return torch.cat([getattr(self, name)(shared) for name in self.output_names], dim=-1)


class ClassHead(nn.Module):
    """Logits of the hearing-loss classes, divided by a trained temperature."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = size.base
        self.pooling = AttentionPooling(base)
        self.shared = nn.Sequential(
            *(nn.Linear(base, base), nn.GELU(), nn.LayerNorm(base)),
            *(nn.Linear(base, base), nn.GELU(), nn.LayerNorm(base)),
        )
        self.logits = _mlp(base, base // 2, CLASSES)
        # The logarithm, so that the temperature stays positive without a clamp.
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 5]."""
        logits = self.logits(self.shared(self.pooling(x)))
        return logits * torch.exp(-self.log_temperature)


class ThresholdHead(nn.Module):
    """The threshold in dB, never negative."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.pooling = AttentionPooling(size.base)
        self.level = _mlp(size.base, size.base, size.base // 2, last=nn.GELU())
        self.last = nn.Linear(size.base // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch]."""
        return F.softplus(self.last(self.level(self.pooling(x))).float()).squeeze(-1)


def _mlp(*widths: int, last: nn.Module | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
    return nn.Sequential(*layers[:-1], *([last] if last is not None else []))
