"""Translations that a model writes by itself, token by token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from models.doc_translation.vocabulary import Vocabulary

STRIDE = 64
"""Lengths that the decoder sees are multiples of this: a compiled model knows few shapes."""


@torch.no_grad()
def greedy(model: Module, memory: Tensor, count: int, vocabulary: Vocabulary) -> Tensor:
    """The likeliest next token, `count` times, for each page of `memory`; int64 [batch, count].

    Always `count` calls of `model`, so that ranks that hold parts of it stay in step; what stands
    behind an end token means nothing. Collective where the model is sharded.
    """
    tokens = torch.full((memory.shape[0], count), vocabulary.pad, device=memory.device)
    before = torch.full_like(tokens, vocabulary.pad)
    before[:, 0] = vocabulary.start
    for at in range(count):
        # What stands behind `at` does not matter: attention is causal.
        seen = before[:, : min(count, (at // STRIDE + 1) * STRIDE)]
        tokens[:, at] = model(memory=memory, decoder_ids=seen, at=at).argmax(-1)
        if at + 1 < count:
            before[:, at + 1] = tokens[:, at]
    return tokens


def texts(tokens: Tensor, vocabulary: Vocabulary) -> list[str]:
    """What `tokens` [batch, count] say, each up to its end token."""
    return [vocabulary.decode(row) for row in tokens.tolist()]
