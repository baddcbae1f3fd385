"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STEPS = 2**16
"""Random 16-bit integers decide, so the probability is a multiple of 1 / 65536."""


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, which on a CPU draws one random number for four elements.

    torch draws a 64-bit number for each element there, which took an eighth of a training step of
    the abr model. The probability is rounded to 16 bits, and kept elements are scaled by exactly
    its inverse. On other devices, and compiled, it is torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """A tensor like `x`, of any shape, with elements set to 0 in training mode."""
        dropped = round(self.p * _STEPS)
        is_drawn = self.training and dropped not in (0, _STEPS)
        if not is_drawn or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        drawn = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - _STEPS // 2
        return x * (_STEPS / (_STEPS - dropped)) * kept
