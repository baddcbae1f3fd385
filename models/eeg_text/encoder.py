"""The encoder: convolutions and a transformer per region, then a global transformer."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Buffer, Conv1d, LayerNorm, Linear, Module, ModuleDict, ModuleList, Parameter
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gearshift.models.common.layers import Dropout
from gearshift.models.eeg_text.config import KERNEL, TOKEN_SAMPLES, Size
from gearshift.models.eeg_text.montage import INDICES


class SelfAttention(Module):
    """Attention of every token to every valid one."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` [batch, token, width]; `valid` [batch, token], bool, at least one True per row."""
        heads = self.in_proj(x).unflatten(2, (3 * self.heads, -1)).transpose(1, 2)
        query, key, value = heads.chunk(3, dim=1)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            valid[:, None, None],
            self.dropout if self.training else 0.0,
        )
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class TransformerLayer(Module):
    """A post-norm transformer layer, as in the original transformer.

    Not torch's layer: its fast path in evaluation reads the weights of submodules without calling
    their forward, where an engine gathers shards.
    """

    recomputes = False
    """Whether activations are recomputed in the backward pass."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads, dropout)
        self.attention_norm = LayerNorm(width)
        self.widen = Linear(width, hidden)
        self.narrow = Linear(hidden, width)
        self.norm = LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """As SelfAttention.forward."""
        if self.recomputes and x.requires_grad:
            # Inside forward, so that the hooks of an engine around the layer stay outside.
            return checkpoint(
                self._forward,
                x,
                valid,
                use_reentrant=False,
            )
        return self._forward(x, valid)

    def _forward(self, x: Tensor, valid: Tensor) -> Tensor:
        attended = self.attention(x, valid)
        x = self.attention_norm(x + self.dropout(attended))
        hidden = self.dropout(F.gelu(self.widen(x)))
        return self.norm(x + self.dropout(self.narrow(hidden)))


def sinusoids(tokens: int, width: int) -> Tensor:
    """Fixed positions [token, width]. Source: Vaswani et al., Attention Is All You Need, 2017."""
    exponents = torch.arange(0, width, 2) * (-math.log(10_000.0) / width)
    angles = torch.arange(tokens)[:, None] * exponents.exp()
    return torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)


class Region(Module):
    """One region of the head: convolutions, positions and a transformer.

    Source: Liu et al., EEG2TEXT: Open Vocabulary EEG-to-Text Decoding with EEG Pre-Training and
    Multi-View Transformer, 2024.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        size: Size,
        tokens: int,
        dropout: float,
    ) -> None:
        """`channels`: the indices of its channels among the 105."""
        super().__init__()
        self.channels = Buffer(torch.tensor(channels), persistent=False)
        self.positions = Buffer(sinusoids(tokens, size.width), persistent=False)
        self.cnn = RegionCnn(len(channels), size.width, dropout)
        self.layers = ModuleList(
            TransformerLayer(size.width, size.heads, size.hidden, dropout)
            for _ in range(size.layers)
        )
        self.norm = LayerNorm(size.width)

    def forward(self, eeg: Tensor, valid: Tensor) -> Tensor:
        """Tokens [batch, time / 4, width] of `eeg` [batch, 105, time]; `valid` [batch, time]."""
        x = self.cnn(eeg.index_select(1, self.channels), valid)
        x = x + self.positions[: x.shape[1]]
        valid = valid[:, ::TOKEN_SAMPLES]
        for layer in self.layers:
            x = layer(x, valid)
        return self.norm(x)


class Encoder(Module):
    """Ten regional encoders, joined by a global transformer."""

    def __init__(
        self,
        size: Size,
        tokens: int,
        dropout: float,
    ) -> None:
        """`tokens`: the most tokens of a sample."""
        super().__init__()
        self.regions = ModuleDict()
        for name, channels in INDICES.items():
            self.regions[name] = Region(
                channels,
                size,
                tokens,
                dropout,
            )
        wide = len(INDICES) * size.width
        self.layers = ModuleList(
            TransformerLayer(wide, size.heads, len(INDICES) * size.hidden, dropout)
            for _ in range(size.global_layers)
        )
        self.norm = LayerNorm(wide)
        self.project = Linear(wide, size.width)
        self.project_norm = LayerNorm(size.width)

    def forward(self, eeg: Tensor, valid: Tensor) -> Tensor:
        """Hidden states [batch, time / 4, width].

        `eeg` [batch, time, 105] is ignored where `valid` [batch, time], bool, is False.
        """
        eeg = (eeg * valid[:, :, None]).transpose(1, 2)
        parts = [region(eeg, valid) for region in self.regions.values()]
        x = torch.cat(parts, dim=2)
        tokens = valid[:, ::TOKEN_SAMPLES]
        for layer in self.layers:
            x = layer(x, tokens)
        return self.project_norm(self.project(self.norm(x)))

    def recompute_regions(self) -> None:
        """From now on, recompute the activations of the regions in the backward pass.

        The regions have a tenth of the weights, but most of the activations.
        """
        for module in self.regions.modules():
            if isinstance(module, TransformerLayer):
                module.recomputes = True


MOMENTUM = 0.1
EPSILON = 1e-5


class MaskedBatchNorm(Module):
    """Batch normalization over the valid time steps of a batch, without padding.

    Running statistics are those of torch's BatchNorm1d, with the unbiased variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = Parameter(torch.ones(channels))
        self.bias = Parameter(torch.zeros(channels))
        self.running_mean = Buffer(torch.zeros(channels))
        self.running_var = Buffer(torch.ones(channels))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """`x` [batch, channel, time]; `valid` [batch, time], bool. The result is 0 at padding."""
        keep = valid[:, None]
        with torch.autocast(x.device.type, enabled=False):
            wide = x.float()
            mean: Tensor = self.running_mean
            var: Tensor = self.running_var
            if self.training:
                count = keep.sum().clamp(min=1).to(wide.dtype)
                mean = (wide * keep).sum((0, 2)) / count
                squares = (wide - mean[:, None]).square()
                var = (squares * keep).sum((0, 2)) / count
                with torch.no_grad():
                    unbiased = var * count / (count - 1).clamp(min=1)
                    self.running_mean.lerp_(mean.to(self.running_mean.dtype), MOMENTUM)
                    self.running_var.lerp_(unbiased.to(self.running_var.dtype), MOMENTUM)
            scale = self.weight.float() * torch.rsqrt(var.float() + EPSILON)
            shift = self.bias.float() - mean.float() * scale
            normed = torch.addcmul(shift[:, None], wide, scale[:, None])
        return (normed * keep).to(x.dtype)


class RegionCnn(Module):
    """Two convolutions of stride 2: four samples become one token."""

    compiles_parts = True

    def __init__(
        self,
        channels: int,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        convolution = partial(Conv1d, kernel_size=KERNEL, stride=2, padding=KERNEL // 2)
        self.first = convolution(channels, width // 2)
        self.first_norm = MaskedBatchNorm(width // 2)
        self.second = convolution(width // 2, width)
        self.second_norm = MaskedBatchNorm(width)
        self.dropout = Dropout(dropout)

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile what follows the first convolution, which has other shapes in each region."""
        self._tokens = torch.compile(self._tokens, *args, **options)  # type: ignore[method-assign]

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Tokens [batch, time / 4, width] of `x` [batch, channel, time].

        `valid` [batch, time], bool; where it is False, `x` and the tokens are 0.
        """
        return self._tokens(self.first(x), valid)

    def _tokens(self, x: Tensor, valid: Tensor) -> Tensor:
        x = F.relu(self.first_norm(x, valid[:, ::2]))
        x = self.second(self.dropout(x))
        x = self.second_norm(x, valid[:, ::4])
        return self.dropout(F.relu(x)).transpose(1, 2)
