"""Convolutions over one region of the head, with statistics of valid samples only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.eeg_text.config import KERNEL

MOMENTUM = 0.1


class MaskedBatchNorm(nn.Module):
    """Batch normalisation over the valid time steps of a batch; padding counts for nothing.

    Its running statistics are those of torch's BatchNorm1d: the variance is the unbiased one.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` [batch, channel, time]; `valid` [batch, time], bool. Padding of the result is 0."""
        keep = valid[:, None]
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            if self.training:
                mean, var = self._statistics(wide, keep)
            else:
                mean, var = self.running_mean, self.running_var
            scale = self.weight.float() * torch.rsqrt(var.float() + self.eps)
            shift = self.bias.float() - mean.float() * scale
            y = torch.addcmul(shift[:, None], wide, scale[:, None])
        return (y * keep).to(x.dtype)

    def _statistics(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        count = keep.sum().clamp(min=1).to(x.dtype)
        mean = (x * keep).sum((0, 2)) / count
        var = ((x - mean[:, None]).square() * keep).sum((0, 2)) / count
        with torch.no_grad():
            unbiased = var * count / (count - 1).clamp(min=1)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)
        return mean, var


class RegionCnn(nn.Module):
    """Two convolutions of stride 2: four samples become one token."""

    def __init__(self, channels: int, width: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv1d(channels, width // 2, KERNEL, stride=2, padding=KERNEL // 2)
        self.first_norm = MaskedBatchNorm(width // 2)
        self.second = nn.Conv1d(width // 2, width, KERNEL, stride=2, padding=KERNEL // 2)
        self.second_norm = MaskedBatchNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Tokens [batch, time / 4, width] of `x` [batch, channel, time].

        `valid` [batch, time], bool; where it is False, `x` is 0, and so are the tokens.
        """
        x = self.dropout(F.relu(self.first_norm(self.first(x), valid[:, ::2])))
        x = self.second_norm(self.second(x), valid[:, ::4])
        return self.dropout(F.relu(x)).transpose(1, 2)
