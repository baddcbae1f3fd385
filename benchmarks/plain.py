"""GPT-2 and Llama in plain PyTorch, without code of ours in a step: the anchor on a GPU.

Sources: Radford et al., Language Models are Unsupervised Multitask Learners, 2019; Touvron et al.,
LLaMA, 2023. As in the sizes of ours, the output layer shares the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.workload import SEED, Work
from gearshift.models.language.config import SIZES, Size

GPT2 = ("124M",)
"""Sizes in the layout of GPT-2; the others are in that of Llama."""
BATCHES = 4
"""Different batches, in turn."""


class Layer(nn.Module):
    """Attention and feed-forward; in GPT-2's layout or, with `is_llama`, in Llama's."""

    def __init__(self, size: Size, is_llama: bool) -> None:
        super().__init__()
        self.heads, self.is_llama = size.heads, is_llama
        norm = nn.RMSNorm if is_llama else nn.LayerNorm
        self.norm1, self.norm2 = norm(size.width), norm(size.width)
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=not is_llama)
        self.out = nn.Linear(size.width, size.width, bias=not is_llama)
        self.up = nn.Linear(size.width, (1 + is_llama) * size.hidden, bias=not is_llama)
        self.down = nn.Linear(size.hidden, size.width, bias=not is_llama)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """`x` [batch, time, width]; angles [time, head / 2]."""
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind()  # each [batch, head, time, width]
        if self.is_llama:
            q, k = _rotate(q, cosine, sine), _rotate(k, cosine, sine)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        hidden = self.up(self.norm2(x))
        if self.is_llama:
            gate, hidden = hidden.chunk(2, dim=-1)
            return x + self.down(F.silu(gate) * hidden)
        return x + self.down(F.gelu(hidden))


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, b * cosine + a * sine), dim=-1).to(x.dtype)


class Head(nn.Module):
    """Norm, output layer and mean cross-entropy."""

    def __init__(self, embedding: nn.Embedding, is_llama: bool) -> None:
        super().__init__()
        vocabulary, width = embedding.weight.shape
        self.norm = (nn.RMSNorm if is_llama else nn.LayerNorm)(width)
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = embedding.weight

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """`x` [batch, time, width], `labels` [batch, time]."""
        logits = self.output(self.norm(x)).flatten(0, 1)
        return F.cross_entropy(logits.float(), labels.flatten())


class GPT(nn.Module):
    """A causal language model; its output is the loss."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, size: Size, is_llama: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocabulary, size.width)
        self.positions = None if is_llama else nn.Embedding(size.context, size.width)
        self.layers = nn.ModuleList(Layer(size, is_llama) for _ in range(size.layers))
        self.head = Head(self.tokens, is_llama)
        half = size.width // size.heads // 2
        angles = torch.arange(size.context)[:, None] / 10_000 ** (torch.arange(half) / half)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of `labels` [batch, time], the next tokens of `input_ids`."""
        time = input_ids.shape[1]
        x = self.tokens(input_ids)
        if self.positions is not None:
            x = x + self.positions(torch.arange(time, device=x.device))
        for layer in self.layers:
            x = layer(x, self.cosine[:time], self.sine[:time])
        return self.head(x, labels)


@dataclass(frozen=True)
class PlainWork(Work):
    """Random tokens and a plain model of the size."""

    @property
    def shape(self) -> Size:
        """GPT-2 has no gate: its hidden layer is wider for the same parameters."""
        size = SIZES[self.size]
        wide = replace(size, hidden=4 * size.width) if self.size in GPT2 else size
        return replace(wide, context=self.seq_len or size.context)

    def model(self) -> nn.Module:
        """A fresh model on the device."""
        torch.manual_seed(SEED)
        with torch.device(self.device):
            return GPT(self.shape, self.size not in GPT2)

    def blocks(self, model: nn.Module) -> list[nn.Module]:
        """The layers."""
        assert isinstance(model, GPT)
        return list(model.layers)

    def flops(self) -> float:
        """6·N·T + 12·L·d·T², as counted for ours: the tied output counts, the lookups do not."""
        size = self.shape
        with torch.device("meta"):
            model = GPT(size, self.size not in GPT2)
        weights = {
            w
            for m in model.modules()
            if not isinstance(m, nn.Embedding)
            for w in m.parameters(False)
        }
        elements = sum(weight.numel() for weight in weights if weight.dim() > 1)
        attention = 12.0 * size.layers * size.width * size.context**2
        return (6.0 * elements * size.context + attention) * self.micro_batch

    def batches(self) -> Iterator[Mapping[str, Any]]:
        """Batches copied from pinned memory."""
        draw = torch.Generator().manual_seed(self.rank)
        shape = (BATCHES, self.micro_batch, self.shape.context + 1)
        tokens = torch.randint(self.shape.vocabulary, shape, generator=draw)
        if self.device != "cpu":
            tokens = tokens.pin_memory()
        for step in range(self.steps):
            batch = tokens[step % BATCHES].to(self.device, non_blocking=True)
            yield {"input_ids": batch[:, :-1], "labels": batch[:, 1:]}

    def loss(self, model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The mean loss of a batch."""
        return model(batch["input_ids"], batch["labels"])
