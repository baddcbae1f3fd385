"""Convolution, pooling, positions and resampling of sequences, with channels last."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TimeConv(nn.Conv1d):
    """A convolution along time of [batch, time, channel]; a stride of 2 halves it, rounded up."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mT).mT


class ConvBlock(nn.Module):
    """Two convolutions with a ReLU between, a residual, and a layer norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        middle = max(inputs, outputs)
        self.first = TimeConv(inputs, middle, kernel)
        self.second = TimeConv(middle, outputs, kernel)
        self.residual = nn.Identity() if inputs == outputs else TimeConv(inputs, outputs, 1)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, inputs]; returns [batch, time, outputs]."""
        return self.norm(self.second(F.relu(self.first(x))) + self.residual(x))


class Halving(nn.Module):
    """A strided convolution, group norm over all channels of a sample, and GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = TimeConv(width, width, 3, stride=2)
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]; returns half of the time, rounded up."""
        return F.gelu(self.norm(self.convolution(x).mT).mT)


class AttentionPooling(nn.Module):
    """The mean over time, weighted by a scorer with a tanh."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width // 2)
        self.score = nn.Linear(width // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, time, width]; returns [batch, width]."""
        share = self.score(torch.tanh(self.hidden(x))).softmax(1)
        return (share.mT @ x.to(share.dtype)).squeeze(1)


def sinusoids(time: int, width: int, device: torch.device) -> Tensor:
    """A vector for each position, [time, width], float32; `width` is even.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.5.
    """
    position = torch.arange(time, device=device, dtype=torch.float32)
    exponent = torch.arange(0, width, 2, device=device, dtype=torch.float32) / width
    angle = position[:, None] * torch.exp(-math.log(10000.0) * exponent)
    return torch.cat((angle.sin(), angle.cos()), dim=1)


def upsample(x: Tensor, time: int) -> Tensor:
    """`x` [batch, shorter, channel], interpolated linearly to `time` positions.

    A matrix product, because the gradient of torch's interpolation is not deterministic on CUDA.
    """
    shorter = x.shape[1]
    position = torch.arange(time, device=x.device, dtype=torch.float32) + 0.5
    position = (position * (shorter / time) - 0.5).clamp(0, shorter - 1)
    source = torch.arange(shorter, device=x.device, dtype=torch.float32)
    share = F.relu(1 - (position[:, None] - source).abs())
    return share.to(x.dtype) @ x
