"""The way up: decoder levels, each at twice the rate of the one before."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.abr.config import Size
from models.abr.network.attention import DecoderLayer, FeedForward, position_table
from models.abr.network.convolution import AttentionPooling, TimeConv, upsampled
from models.abr.network.film import FiLM


class DecoderLevel(nn.Module):
    """The level below joined with the encoder at this rate, attended to and conditioned."""

    def __init__(self, inputs: int, width: int, skip: int, size: Size, kernel: str) -> None:
        super().__init__()
        dropout = size.dropout
        self.joined = TimeConv(inputs + skip, width, 3)
        self.joined_norm = nn.LayerNorm(width)
        self.memory = nn.Linear(width, width)
        self.layers = nn.ModuleList(
            DecoderLayer(width, size.heads, kernel, dropout) for _ in range(size.layers)
        )
        self.films = nn.ModuleList(FiLM(width) for _ in range(size.layers))
        self.positions = position_table(width)
        self.layers_norm = nn.LayerNorm(width)
        self.wide = FeedForward(width, 4, dropout)
        self.narrow_norm = nn.LayerNorm(width)
        self.narrow = FeedForward(width, 2, dropout)
        self.skip_pooling = AttentionPooling(skip)
        self.skip_projection = nn.Linear(skip, width)
        self.skip_norm = nn.LayerNorm(width)
        self.last = TimeConv(width, width, 3)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, skip: Tensor, memory: Tensor, condition: Tensor) -> Tensor:
        """`x` [batch, shorter, inputs], `memory` [batch, shorter, width], of the level below.

        `skip` [batch, time, skip], the encoder at this rate; gives [batch, time, width].
        """
        x = upsampled(x, skip.shape[1])
        x = self.joined_norm(self.joined(torch.cat((x, skip.to(x.dtype)), dim=-1)))
        memory = self.memory(memory)
        for layer, film in zip(self.layers, self.films, strict=True):
            x = film(layer(x, memory, self.positions), condition)
        x = x + self.wide(self.layers_norm(x))
        x = x + self.narrow(self.narrow_norm(x))
        pooled = F.gelu(self.skip_projection(self.skip_pooling(skip)))
        x = x + self.skip_norm(pooled)[:, None]
        return self.norm(x + self.last(x))
