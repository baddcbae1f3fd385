"""FiLM: examination facts scale and shift the features of the signal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.abr.config import CONDITION, STATIC

STRENGTH = 0.1
CONDITION_DROPOUT = 0.15
"""Share of training samples without a condition."""


def static_embedding() -> nn.Sequential:
    """The layers from facts [batch, 4] to the condition [batch, 8]."""
    return nn.Sequential(
        nn.Linear(STATIC, CONDITION),
        nn.GELU(),
        nn.LayerNorm(CONDITION),
        nn.Linear(CONDITION, CONDITION),
    )


class FiLM(nn.Module):
    """y = (1 + 0.1·γ(c))·norm(x) + 0.1·β(c).

    The layer norm fixes the scale of x. In training, some samples get a learned vector instead of
    their condition. Source: Perez et al., FiLM, 2018.
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
        # Also in evaluation: a parameter outside the graph would have no gradient.
        absent = torch.zeros(len(x), 1, device=x.device) > 0
        if self.training:
            absent = torch.rand(len(x), 1, device=x.device) < CONDITION_DROPOUT
        features = self.trunk(torch.where(absent, self.absent.to(condition.dtype), condition))
        scale = 1 + STRENGTH * self.gamma(features)
        return scale[:, None] * self.norm(x) + STRENGTH * self.beta(features)[:, None]


def _branch(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
