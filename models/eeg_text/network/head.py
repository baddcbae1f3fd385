"""The head of masked pre-training: each token tells the four samples it was made of."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES, Size


class MaskedHead(nn.Module):
    """Hidden states to samples."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.widen = nn.Linear(size.width, size.head_hidden)
        self.out = nn.Linear(size.head_hidden, TOKEN_SAMPLES * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Samples [batch, time, 105] from `x` [batch, token, width]."""
        y = self.out(F.gelu(self.widen(self.norm(x))))
        # A copy: FSDP asks for no views, on which a change in place would lose its hook.
        return y.view(x.shape[0], x.shape[1] * TOKEN_SAMPLES, CHANNELS).clone()
