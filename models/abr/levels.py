"""Encoder and decoder levels of the network, and its heads."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.abr.config import CLASSES, POINTS, Size
from gearshift.models.abr.layers import (
    AttentionPooling,
    ConvBlock,
    DecoderLayer,
    EncoderLayer,
    FiLM,
    GeluFeedForward,
    Halving,
    StateSpace,
    TimeConv,
    mlp,
    relative_positions,
    sinusoids,
    upsample,
)

PEAK = ("exists", "latency", "amplitude")
BOTTLENECK_LAYERS = 2
POSITION_SCALE = 0.3
"""Scale of the position vectors, which would otherwise dominate the signal."""


class EncoderLevel(nn.Module):
    """Convolutions, halving of the rate, state space layers and FiLM.

    A level that adds channels starts with a projection; any other has a residual connection.
    """

    def __init__(self, inputs: int, width: int, size: Size) -> None:
        super().__init__()
        self.is_residual = inputs == width
        self.projection = TimeConv(inputs, width, 1, 2 if self.is_residual else 1)
        self.convolutions = nn.Sequential(ConvBlock(width, width, 3), ConvBlock(width, width, 3))
        self.halving = Halving(width)
        self.state_spaces = nn.Sequential(
            StateSpace(width, size.states, size.dropout),
            StateSpace(width, size.states, size.dropout),
        )
        self.film = FiLM(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` [batch, time, inputs]; returns [batch, time / 2 rounded up, width]."""
        projected = self.projection(x)
        if not self.is_residual:
            x = projected
        x = self.halving(self.convolutions(x))
        positions = sinusoids(x.shape[1], x.shape[2], x.device)
        x = x + POSITION_SCALE * positions.to(x.dtype)
        x = self.film(self.state_spaces(x), condition)
        if self.is_residual:
            x = x + projected
        return self.norm(x)


class Bottleneck(nn.Module):
    """A state space layer and two transformer layers, concatenated and mixed."""

    def __init__(self, width: int, size: Size, kernel: str) -> None:
        super().__init__()
        self.state_space = StateSpace(width, size.states, size.dropout)
        self.layers = nn.ModuleList()
        for _ in range(BOTTLENECK_LAYERS):
            self.layers.append(EncoderLayer(width, size.heads, 4, kernel, size.dropout))
        self.positions = relative_positions(width)
        self.layers_norm = nn.LayerNorm(width)
        self.joined = mlp(2 * width, 2 * width, width)
        self.film = FiLM(width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` [batch, time, width]; returns the same shape."""
        filtered = self.state_space(x)
        attended = filtered
        for layer in self.layers:
            attended = layer(attended, self.positions)
        both = torch.cat((filtered, self.layers_norm(attended)), dim=-1)
        return self.norm(self.film(self.joined(both), condition))


class DecoderLevel(nn.Module):
    """Joins the level below with the encoder level of this rate, with attention and FiLM."""

    def __init__(
        self,
        inputs: int,
        width: int,
        skip: int,
        size: Size,
        kernel: str,
    ) -> None:
        super().__init__()
        dropout = size.dropout
        self.joined = TimeConv(inputs + skip, width, 3)
        self.joined_norm = nn.LayerNorm(width)
        self.memory = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, size.heads, kernel, dropout) for _ in range(size.layers)
        )
        self.films = nn.ModuleList(FiLM(width) for _ in range(size.layers))
        self.positions = relative_positions(width)
        self.layers_norm = nn.LayerNorm(width)
        self.wide = GeluFeedForward(width, 4, dropout)
        self.narrow_norm = nn.LayerNorm(width)
        self.narrow = GeluFeedForward(width, 2, dropout)
        self.skip_pooling = AttentionPooling(skip)
        self.skip_projection = nn.Linear(skip, width)
        self.skip_norm = nn.LayerNorm(width)
        self.last = TimeConv(width, width, 3)
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        skip: Tensor,
        memory: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """`x` [batch, shorter, inputs] and `memory` [batch, shorter, width]: the level below.

        `skip` [batch, time, skip], the encoder at this rate; returns [batch, time, width].
        """
        x = upsample(x, skip.shape[1])
        x = self.joined_norm(self.joined(torch.cat((x, skip.to(x.dtype)), dim=-1)))
        memory = self.memory(memory)
        for layer, film in zip(self.layers, self.films, strict=True):
            x = film(layer(x, memory, self.positions), condition)
        x = x + self.wide(self.layers_norm(x))
        x = x + self.narrow(self.narrow_norm(x))
        pooled = F.gelu(self.skip_projection(self.skip_pooling(skip)))
        x = x + self.skip_norm(pooled)[:, None]
        return self.norm(x + self.last(x))


class SignalHead(nn.Module):
    """The waveform, from one pooled vector and a convolutional residual."""

    def __init__(self, size: Size, kernel: str) -> None:
        super().__init__()
        base = size.base
        self.layers = nn.Sequential(
            EncoderLayer(base, 1, 2, kernel, size.dropout),
            EncoderLayer(base, 1, 2, kernel, size.dropout),
        )
        self.pooling = AttentionPooling(base)
        self.shape = mlp(base, 2 * base, 2 * base, POINTS)
        self.residual = nn.Sequential(
            TimeConv(1, 16, 7),
            nn.GELU(),
            TimeConv(16, 8, 5),
            nn.GELU(),
            TimeConv(8, 1, 3),
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

    def __init__(self, size: Size, trained: Collection[str]) -> None:
        super().__init__()
        base = size.base
        half = base // 2
        self.pooling = AttentionPooling(base)
        self.shared = mlp(base, base, base)
        self.exists = mlp(base, half, 1)
        self.latency = mlp(base, base, half, 1)
        self.amplitude = mlp(base, base, half, 1)
        self.output_names = tuple(name for name in PEAK if name in trained)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, output], in the order of `output_names`."""
        shared = F.gelu(self.shared(self.pooling(x)))
        return torch.cat([getattr(self, name)(shared) for name in self.output_names], dim=-1)


class ClassHead(nn.Module):
    """Logits of the hearing-loss classes, divided by a trained temperature."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = size.base
        self.pooling = AttentionPooling(base)
        self.shared = nn.Sequential(
            nn.Linear(base, base),
            nn.GELU(),
            nn.LayerNorm(base),
            nn.Linear(base, base),
            nn.GELU(),
            nn.LayerNorm(base),
        )
        self.logits = mlp(base, base // 2, CLASSES)
        # The logarithm, so that the temperature stays positive without a clamp.
        self.log_temperature = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch, 5]."""
        return self.logits(self.shared(self.pooling(x))) * torch.exp(-self.log_temperature)


class ThresholdHead(nn.Module):
    """The threshold in standard deviations from its mean."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        base = size.base
        half = base // 2
        self.pooling = AttentionPooling(base)
        self.level = mlp(base, base, half)
        self.last = nn.Linear(half, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, base]; returns [batch]."""
        level = F.gelu(self.level(self.pooling(x)))
        return self.last(level).float().squeeze(-1)
