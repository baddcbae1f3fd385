"""Facts of the examination that scale and shift what is computed from the signal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.abr.config import CONDITION, STATIC

STRENGTH = 0.1
ABSENT = 0.15
"""Share of samples that training leaves without a condition."""


def static_embedding() -> nn.Sequential:
    """What makes a condition [batch, 8] of the facts [batch, 4]."""
    return nn.Sequential(
        nn.Linear(STATIC, CONDITION),
        nn.GELU(),
        nn.LayerNorm(CONDITION),
        nn.Linear(CONDITION, CONDITION),
    )


class FiLM(nn.Module):
    """y = (1 + 0.1·γ(c))·x + 0.1·β(c), of an `x` that is layer-normed first.

    So the tenth is one of a known size. In training a sample now and then has a learned vector in
    place of its condition. Source: Perez et al., FiLM, 2018.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Linear(CONDITION, width),
            nn.LayerNorm(width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.GELU(),
        )
        self.gamma = _branch(width)
        self.beta = _branch(width)
        self.norm = nn.LayerNorm(width)
        self.absent = nn.Parameter(torch.zeros(CONDITION))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """`x` [batch, time, width], `condition` [batch, 8]."""
        # Also where nothing is left out: a parameter outside the graph would have no gradient.
        absent = torch.zeros(len(x), 1, device=x.device) > 0
        if self.training:
            absent = torch.rand(len(x), 1, device=x.device) < ABSENT
        told = self.trunk(torch.where(absent, self.absent.to(condition.dtype), condition))
        scale = 1 + STRENGTH * self.gamma(told)
        return scale[:, None] * self.norm(x) + STRENGTH * self.beta(told)[:, None]


def _branch(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
