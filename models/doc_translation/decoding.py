"""Decoding: translations of encoded pages, token by token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.doc_translation.vocabulary import Vocabulary


class DecoderCache:
    """Keys and values of the decoder for the tokens so far, so that none is computed twice."""

    def __init__(self) -> None:
        self.state: Any = None
        """A cache of transformers, which builds it in the first pass."""

    def select(self, rows: Tensor) -> None:
        """Keep `rows` of the batch, int64 [batch], in this order; a row may appear repeatedly."""
        if isinstance(self.state, tuple):  # in transformers 4
            self.state = tuple(
                tuple(x.index_select(0, rows) for x in layer) for layer in self.state
            )
        else:
            self.state.reorder_cache(rows)


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
    end = vocabulary.end
    memory = memory.repeat_interleave(beams, dim=0)
    rows = torch.arange(pages, device=device)[:, None]
    tokens = torch.full((pages, beams, count), vocabulary.pad, device=device)
    # At the start all hypotheses of a page are equal, and one counts.
    sums = torch.full((pages, beams), -torch.inf, device=device)
    sums[:, 0] = 0.0
    best = tokens[:, 0]
    best_scores = torch.full((pages,), -torch.inf, device=device)
    finished = torch.zeros(pages, dtype=torch.int64, device=device)
    last = torch.full((pages * beams, 1), vocabulary.start, device=device)
    cache = DecoderCache()
    # The cache grows with each token: a compiler would see another shape each time.
    with torch.compiler.set_stance("force_eager"):
        for at in range(count):
            logits = model(memory=memory, decoder_ids=last, cache=cache).view(pages, beams, -1)
            candidates = sums[..., None] + logits.float().log_softmax(-1)
            # At most one candidate per beam is an end: enough others are left.
            found, indices = candidates.flatten(1).topk(2 * beams)  # the best first
            sources = indices // logits.shape[-1]
            chosen = indices % logits.shape[-1]
            is_end = chosen == end
            is_new = is_end[:, :beams] & (finished < beams)[:, None] & found[:, :beams].isfinite()
            scores, which = (found[:, :beams] / (at + 1)).masked_fill(~is_new, -torch.inf).max(1)
            ended = tokens[rows[:, 0], sources[rows[:, 0], which]]
            ended[:, at] = end
            best = torch.where((scores > best_scores)[:, None], ended, best)
            best_scores = torch.maximum(scores, best_scores)
            finished = finished + is_new.sum(1)
            still_open = is_end.int().argsort(dim=1, stable=True)[:, :beams]
            sums = found.gather(1, still_open)
            sources = sources.gather(1, still_open)
            tokens = tokens[rows, sources]
            tokens[:, :, at] = chosen.gather(1, still_open)
            if stops_early and (finished >= beams).all():
                break
            if beams > 1:
                cache.select((rows * beams + sources).flatten())
            last = tokens[:, :, at].reshape(-1, 1)
    scores = (sums[:, 0] / count).masked_fill(finished >= beams, -torch.inf)
    return torch.where((scores > best_scores)[:, None], tokens[:, 0], best)


def texts(tokens: Tensor, vocabulary: Vocabulary) -> list[str]:
    """Texts of `tokens` [batch, count], each up to its end token."""
    return [vocabulary.decode(row) for row in tokens.tolist()]
