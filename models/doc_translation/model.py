"""Two views of a page, gathered by queries and mixed by a gate, and a decoder that writes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models.common.kernels import allowed
from models.doc_translation import parts
from models.doc_translation.config import Size
from models.doc_translation.query_transformer import QueryTransformer

IGNORE = -100
"""The label that is left out of the loss."""

CHUNK = 2**26
"""Logits that exist at one time: 256 MiB in float32."""


class DocTranslator(nn.Module):
    """The model.

    Source: Liang et al., Document Image Machine Translation with Dynamic Multi-pre-trained Models
    Assembling, 2024, section 3.
    """

    def __init__(self, size: Size, dropout: float = 0.0, kernel: str = "auto") -> None:
        super().__init__()
        self.kernel = kernel
        seen = size.local.output_width
        self.global_encoder = parts.global_encoder(size.whole)
        self.local_encoder = parts.local_encoder(size.local)
        self.expand = nn.Linear(size.whole.width, seen)
        self.queries = nn.Parameter(torch.randn(2, size.queries, size.width) * 0.02)
        self.global_gather = QueryTransformer(size.width, seen, size.heads, size.query_hidden)
        self.local_gather = QueryTransformer(size.width, seen, size.heads, size.query_hidden)
        self.gate = nn.Linear(2 * size.width, 1)
        self.project = nn.Linear(size.width, size.width)
        self.decoder: Any = parts.decoder(size, dropout)
        self.rows = max(1, CHUNK // size.vocabulary)

    def forward(
        self,
        page_global: Tensor | None = None,
        page_local: Tensor | None = None,
        memory: Tensor | None = None,
        decoder_ids: Tensor | None = None,
        labels: Tensor | None = None,
        at: int | None = None,
    ) -> Tensor:
        """One of three: the memory of pages, the loss of `labels`, or logits.

        Of pages alone the memory, [batch, queries, width]. With `decoder_ids` [batch, time] the
        logits [batch, time, vocabulary], or those of position `at` alone, [batch, vocabulary];
        with `labels` [batch, time] (-100: left out), too, the cross-entropy in nats, summed over
        tokens. The pages, or their `memory`, must be given; all of a batch's pages have one size:
        `page_global` [batch, 3, pixels, pixels], `page_local` [batch, 3, height, width].
        """
        with allowed(self.kernel):
            if memory is None:
                memory = self._look(page_global, page_local)
            if decoder_ids is None:
                return memory
            hidden = self.decoder.bert(
                input_ids=decoder_ids, encoder_hidden_states=memory, use_cache=False
            ).last_hidden_state
        if labels is not None:
            return self._loss(hidden.flatten(0, 1), labels.flatten())
        return self.decoder.cls(hidden if at is None else hidden[:, at])

    def _look(self, page_global: Tensor | None, page_local: Tensor | None) -> Tensor:
        whole = self.global_encoder(page_global).last_hidden_state
        near = self.local_encoder(page_local).last_hidden_state
        queries = self.queries[:, None].expand(-1, near.shape[0], -1, -1)
        whole = self.global_gather(queries[0], self.expand(whole))
        near = self.local_gather(queries[1], near)
        share = torch.sigmoid(self.gate(torch.cat((near, whole), dim=-1)))
        return self.project(share * near + (1 - share) * whole)

    def _loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """A chunk of logits at a time: those of a whole page are 319 MB in the full size."""
        if len(labels) <= self.rows:
            return self._chunk_loss(hidden, labels)
        chunks = zip(hidden.split(self.rows), labels.split(self.rows), strict=True)
        sums = [checkpoint(self._chunk_loss, x, y, use_reentrant=False) for x, y in chunks]
        return torch.stack(sums).sum()

    def _chunk_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        logits = self.decoder.cls(hidden)
        return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of encoders, query transformers and decoder, in order."""
    names = (*parts.LAYERS, QueryTransformer.__name__)
    return [module for module in model.modules() if type(module).__name__ in names]
