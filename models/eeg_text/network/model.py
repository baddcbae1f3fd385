"""The two models of the family: EEG to text, and EEG with gaps to what is in the gaps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.eeg_text.config import CHANNELS, TOKEN_SAMPLES, Size
from models.eeg_text.network.attention import SelfAttention
from models.eeg_text.network.encoder import Encoder


class EegText(nn.Module):
    """Encoder and text decoder."""

    def __init__(
        self, size: Size, samples: int, pad: int, dropout: float, kernel: str = "auto"
    ) -> None:
        """`samples`: of the longest recording; `pad`: the number of padding in texts."""
        from models.eeg_text.network.decoder import TextDecoder  # stage encoder knows none of it

        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout, kernel)
        self.decoder = TextDecoder(size, pad, dropout, kernel)
        self._frozen: tuple[nn.Module, ...] = ()  # not a list of submodules: they have their names

    def freeze_encoder(self, top_learns: bool = False) -> None:
        """From now on the encoder neither learns nor drops out, nor gathers statistics.

        With `top_learns` that holds for its ten regions, and not for what joins them.
        """
        self._frozen = (self.encoder.regions if top_learns else self.encoder,)
        for module in self._frozen:
            module.requires_grad_(False)
            module.eval()

    def train(self, mode: bool = True) -> EegText:
        """As for any module, but that what is frozen stays as it is."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def forward(
        self,
        eeg: Tensor | None,
        valid: Tensor,
        ids: Tensor | None = None,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, text, vocabulary] of the token after each of `ids` [batch, text].

        `eeg` [batch, time, 105], where `valid` [batch, time] is True. Without `ids`, what the
        encoder makes of `eeg`, [batch, time / 4, width]; given as `memory`, in place of `eeg`, it
        is not made again.
        """
        if memory is None:
            assert eeg is not None, "eeg or memory"
            memory = self.encoder(eeg, valid)
        if ids is None:
            return memory
        return self.decoder(memory, valid[:, ::TOKEN_SAMPLES], ids)

    def blocks(self) -> list[nn.Module]:
        """All transformer layers, in order."""
        return [*self.encoder.blocks(), *self.decoder.text.layers]


class MaskedEeg(nn.Module):
    """Encoder and head of masked pre-training; no text is known to it."""

    def __init__(self, size: Size, samples: int, dropout: float, kernel: str = "auto") -> None:
        """As EegText."""
        super().__init__()
        self.encoder = Encoder(size, samples // TOKEN_SAMPLES, dropout, kernel)
        self.head = MaskedHead(size)

    def forward(self, eeg: Tensor, valid: Tensor, hidden: Tensor) -> Tensor:
        """All samples [batch, time, 105] as they are told from those that are not hidden.

        `hidden` [batch, time / 4], bool: tokens whose samples the encoder sees as 0.
        """
        visible = ~hidden.repeat_interleave(TOKEN_SAMPLES, dim=1)
        return self.head(self.encoder(eeg * visible[:, :, None], valid))

    def blocks(self) -> list[nn.Module]:
        """All transformer layers, in order."""
        return self.encoder.blocks()


def flops_per_sample(model: nn.Module, tokens: int, text: float, is_encoded: bool = False) -> float:
    """Operations of forward and backward over `tokens` of EEG and `text` tokens of a sentence.

    Six for each weight and each place that it is multiplied with, and 12·d·T² for attention over
    T tokens of EEG; that of the text, over so few tokens, is left out. A third of it where a weight
    is frozen; nothing for the encoder where the EEG `is_encoded` before. Source: Chowdhery et al.,
    PaLM, 2022, appendix B.
    """
    total = 0.0
    for name, module in model.named_modules():
        if is_encoded and name.startswith("encoder."):
            continue
        if isinstance(module, SelfAttention):
            each = 12.0 if module.out_proj.weight.requires_grad else 4.0
            total += each * module.out_proj.in_features * tokens**2
        if not isinstance(module, nn.Linear | nn.Conv1d):
            continue
        places = float(tokens)
        if name.endswith("cnn.first"):
            places = 2.0 * tokens
        elif name.startswith("decoder.") and not _reads_eeg(name):
            places = text
        each = 6.0 if module.weight.requires_grad else 2.0
        total += each * module.weight.numel() * places
    return total


def _reads_eeg(name: str) -> bool:
    """Whether a layer of the decoder goes over the tokens of EEG."""
    return name.endswith(("bridge", "encoder_attn.k_proj", "encoder_attn.v_proj"))


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
