"""Decoding: translations of encoded pages, token by token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.doc_translation.vocabulary import Vocabulary


class DecoderCache:
    """Keys and values of the decoder for the tokens so far, so that none is computed twice."""

    def __init__(self) -> None:
        self.state: Any = None
        """A cache of transformers, which builds it in the first pass."""


@torch.no_grad()
def greedy(model: Module, memory: Tensor, count: int, vocabulary: Vocabulary) -> Tensor:
    """Greedy decoding of `count` tokens for each page of `memory`; int64 [batch, count].

    Always `count` model calls, so that ranks of a sharded model stay in step; tokens after an end
    token are meaningless. Collective if the model is sharded.
    """
    cache = DecoderCache()
    last = torch.full((memory.shape[0], 1), vocabulary.start, device=memory.device)
    tokens = []
    # The cache grows with each token: a compiler would see another shape each time.
    with torch.compiler.set_stance("force_eager"):
        for _ in range(count):
            logits = model(memory=memory, decoder_ids=last, cache=cache)  # [batch, 1, vocabulary]
            last = logits.argmax(-1)
            tokens.append(last)
    return torch.cat(tokens, dim=1)


def texts(tokens: Tensor, vocabulary: Vocabulary) -> list[str]:
    """Texts of `tokens` [batch, count], each up to its end token."""
    return [vocabulary.decode(row) for row in tokens.tolist()]
