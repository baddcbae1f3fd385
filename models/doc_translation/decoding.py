"""Decoding: translations of encoded pages, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.doc_translation.vocabulary import Vocabulary


@dataclass
class DecoderCache:
    """Keys and values of the decoder for the tokens so far, so that none is computed twice."""

    state: Any = None
    """A cache of transformers, which builds it in the first pass."""

    def select(self, rows: Tensor) -> None:
        """Keep `rows` of the batch, int64 [batch], in this order; a row may appear repeatedly."""
        self.state.reorder_cache(rows)


@dataclass
class _Finished:
    """The best finished hypothesis of each page, and how many it has, up to `beams`."""

    tokens: Tensor
    """[page, count]; at first those of a page without any."""
    beams: int

    def __post_init__(self) -> None:
        self.scores = torch.full_like(
            self.tokens[:, 0],
            -torch.inf,
            dtype=torch.float32,
        )
        self.count = torch.zeros_like(self.scores, dtype=torch.int64)

    @property
    def is_page_done(self) -> Tensor:
        return self.count >= self.beams

    def add(
        self,
        tokens: Tensor,
        scores: Tensor,
        is_end: Tensor,
    ) -> None:
        """Those of `tokens` [page, hypothesis, count] that `is_end` [page, hypothesis] marks."""
        is_new = is_end & scores.isfinite() & ~self.is_page_done[:, None]
        scores, which = scores.masked_fill(~is_new, -torch.inf).max(1)
        best = tokens.take_along_dim(which[:, None, None], dim=1).squeeze(1)
        self.tokens = torch.where(
            (scores > self.scores)[:, None],
            best,
            self.tokens,
        )
        self.scores = torch.maximum(scores, self.scores)
        self.count += is_new.sum(1)


@torch.no_grad()
def beam_search(
    model: Module,
    memory: Tensor,
    count: int,
    vocabulary: Vocabulary,
    beams: int = 1,
    *,
    stops_early: bool = False,
) -> Tensor:
    """Beam search over `count` tokens for each page of `memory`; int64 [batch, count].

    One beam is greedy decoding. Always `count` model calls with `beams` rows per page, so that
    ranks of a sharded model stay in step; tokens after an end token are meaningless. With
    `stops_early`, only until all pages are finished, with the same result. Collective if the model
    is sharded.

    The score of a hypothesis is its mean log-probability per token, with the end token. A page is
    finished once it has as many finished hypotheses as beams; unfinished ones compete at the end.
    Source: Ott et al., fairseq, 2019, its default length penalty and end of search.
    """
    pages = memory.shape[0]
    device = memory.device
    memory = memory.repeat_interleave(beams, dim=0)
    page = torch.arange(pages, device=device)[:, None]
    tokens = torch.full(
        (pages, beams, count),
        vocabulary.pad,
        device=device,
    )
    finished = _Finished(tokens[:, 0], beams)
    # At the start all hypotheses of a page are equal, and one counts.
    sums = torch.full(
        (pages, beams),
        -torch.inf,
        device=device,
    )
    sums[:, 0] = 0.0
    last = torch.full(
        (pages * beams, 1),
        vocabulary.start,
        device=device,
    )
    cache = DecoderCache()
    # The cache grows with each token: a compiler would see another shape each time.
    with torch.compiler.set_stance("force_eager"):
        for at in range(count):
            logits = model(
                memory=memory,
                decoder_ids=last,
                cache=cache,
            )
            logits = logits.view(
                pages,
                beams,
                -1,
            )
            entries = logits.shape[-1]
            candidates = sums[..., None] + logits.float().log_softmax(-1)
            # The best first. At most one candidate per beam is an end: enough others are left.
            totals, indices = candidates.flatten(1).topk(2 * beams)
            sources = indices // entries
            next_tokens = indices % entries
            extended = tokens[page, sources]
            extended[:, :, at] = next_tokens
            is_end = next_tokens == vocabulary.end
            finished.add(
                extended[:, :beams],
                totals[:, :beams] / (at + 1),
                is_end[:, :beams],
            )

            # The best others continue.
            others = is_end.int().argsort(dim=1, stable=True)[:, :beams]
            sums = totals.gather(1, others)
            tokens = extended[page, others]
            if stops_early and finished.is_page_done.all():
                break
            if beams > 1:
                cache.select((page * beams + sources.gather(1, others)).flatten())
            last = tokens[:, :, at].reshape(-1, 1)
    finished.add(
        tokens[:, :1],
        sums[:, :1] / count,
        torch.ones_like(page, dtype=torch.bool),
    )
    return finished.tokens


def texts(tokens: Tensor, vocabulary: Vocabulary) -> list[str]:
    """Texts of `tokens` [batch, count], each up to its end token."""
    return [vocabulary.decode(row) for row in tokens.tolist()]
