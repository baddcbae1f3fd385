"""The two models of the family: EEG to text, and masked EEG."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.common.layers import HasFrozenParts
from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES, Size
from models.eeg_text.encoder import Encoder


class EegText(HasFrozenParts):
    """Encoder and text decoder."""

    def __init__(
        self,
        size: Size,
        samples: int,
        pad: int,
        dropout: float,
        kernel: str = "auto",
        is_pretrained: bool = False,
    ) -> None:
        """`samples`: the most EEG samples; `pad`: the padding token."""
        from models.eeg_text.decoder import TextDecoder  # not imported in stage encoder

        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout, kernel)
        self.decoder = TextDecoder(size, pad, dropout, kernel, is_pretrained)

    def forward(
        self,
        eeg: Tensor | None,
        valid: Tensor,
        ids: Tensor | None = None,
        memory: Tensor | None = None,
        pool: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, text, vocabulary] of the token after each of `ids` [batch, text].

        `eeg` [batch, time, 105] counts where `valid` [batch, time] is True. Without `ids`, returns
        the encoder output [batch, time / 4, width]; given as `memory`, it replaces `eeg`. With
        `pool`, `eeg` and `valid` are windows, and the output is pooled; see `pooled`.
        """
        tokens = valid[:, ::TOKEN_SAMPLES]
        if memory is None:
            assert eeg is not None, "eeg or memory"
            memory = self.encoder(eeg, valid)
            if pool is not None:
                memory, tokens = pooled(memory, pool), (pool >= 0).any(2)
        if ids is None:
            return memory
        logits: Tensor = self.decoder(memory, tokens, ids)
        return logits

    def blocks(self) -> list[nn.Module]:
        return [*self.encoder.blocks(), *self.decoder.text.layers]


def pooled(states: Tensor, pool: Tensor) -> Tensor:
    """Means [batch, token, width] of `states` [window, token, width]; 0 for an empty mean.

    `pool` [batch, token, windows]: the numbers of their tokens, counted over all windows, or -1.
    """
    present = pool >= 0
    chosen = states.flatten(0, 1)[pool.clamp(min=0)] * present[..., None]
    return chosen.sum(2) / present.sum(2, keepdim=True).clamp(min=1).to(states.dtype)


class MaskedHead(nn.Module):
    """The head of masked pre-training: each token predicts its four samples."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.width)
        self.widen = nn.Linear(size.width, size.head_hidden)
        self.out = nn.Linear(size.head_hidden, TOKEN_SAMPLES * CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Samples [batch, time, 105] from `x` [batch, token, width]."""
        y = self.out(F.gelu(self.widen(self.norm(x))))
        # A copy: with a view, an in-place change would lose the backward hook of FSDP.
        return y.view(x.shape[0], x.shape[1] * TOKEN_SAMPLES, CHANNELS).clone()


class MaskedEeg(nn.Module):
    """Encoder and masked head, for pre-training without text."""

    def __init__(self, size: Size, samples: int, dropout: float, kernel: str = "auto") -> None:
        """As EegText."""
        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout, kernel)
        self.head = MaskedHead(size)

    def forward(self, eeg: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """Predictions of all samples [batch, time, 105] from the visible ones.

        `hidden` [batch, time / 4], bool: tokens whose samples are 0 for the encoder.
        """
        visible = ~hidden.repeat_interleave(TOKEN_SAMPLES, dim=1)
        return self.head(self.encoder(eeg * visible[:, :, None], valid))

    def blocks(self) -> list[nn.Module]:
        return self.encoder.blocks()
