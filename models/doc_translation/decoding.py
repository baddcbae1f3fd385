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

    def select(self, rows: Tensor) -> None:
        """Keep `rows` of the batch, int64 [batch], in this order; a row may appear repeatedly."""
        if isinstance(self.state, tuple):  # in transformers 4
            self.state = tuple(
                tuple(tensor.index_select(0, rows) for tensor in layer) for layer in self.state
            )
        else:
            self.state.reorder_cache(rows)


class Hypotheses:
    """The unfinished hypotheses of each page, and the best of its finished ones.

    The score of a hypothesis is its mean log-probability per token, with the end token. A page is
    finished once it has as many finished hypotheses as beams. Source: Ott et al., fairseq, 2019,
    its default length penalty and end of search.
    """

    def __init__(
        self, pages: int, beams: int, count: int, vocabulary: Vocabulary, device: torch.device
    ) -> None:
        self.beams, self.end = beams, vocabulary.end
        self.tokens = torch.full((pages, beams, count), vocabulary.pad, device=device)
        self.sums = torch.full((pages, beams), -torch.inf, device=device)
        """Log-probabilities; at the start all hypotheses of a page are equal, and one counts."""
        self.sums[:, 0] = 0.0
        self.best = self.tokens[:, 0]  # [pages, count]
        self.best_scores = torch.full((pages,), -torch.inf, device=device)
        self.finished = torch.zeros(pages, dtype=torch.int64, device=device)
        """Finished hypotheses by page."""

    def extend(self, at: int, logits: Tensor) -> Tensor:
        """Add token number `at` by `logits` [pages, beams, vocabulary].

        Returns the beam that each hypothesis continues, int64 [pages, beams].
        """
        beams, size = logits.shape[1:]
        sums = self.sums[..., None] + logits.float().log_softmax(-1)
        # At most one candidate per beam is an end: enough others are left.
        sums, indices = sums.flatten(1).topk(2 * beams)  # [pages, 2 * beams], the best first
        sources, tokens = indices // size, indices % size
        is_end = tokens == self.end
        self._finish(at, sums[:, :beams], sources[:, :beams], is_end[:, :beams])
        open_beams = is_end.int().argsort(dim=1, stable=True)[:, :beams]
        self.sums, sources = sums.gather(1, open_beams), sources.gather(1, open_beams)
        self.tokens = self._of(sources)
        self.tokens[:, :, at] = tokens.gather(1, open_beams)
        return sources

    def _finish(self, at: int, sums: Tensor, sources: Tensor, is_end: Tensor) -> None:
        """Take the hypotheses that end with token number `at`; all [pages, beams]."""
        is_new = is_end & (self.finished < self.beams)[:, None] & sums.isfinite()
        scores, which = (sums / (at + 1)).masked_fill(~is_new, -torch.inf).max(1)
        tokens = self._of(sources.gather(1, which[:, None]))[:, 0]
        tokens[:, at] = self.end
        self._improve(scores, tokens)
        self.finished = self.finished + is_new.sum(1)

    def _improve(self, scores: Tensor, tokens: Tensor) -> None:
        is_better = scores > self.best_scores
        self.best = torch.where(is_better[:, None], tokens, self.best)
        self.best_scores = torch.where(is_better, scores, self.best_scores)

    def _of(self, sources: Tensor) -> Tensor:
        """Tokens of the hypotheses `sources` [pages, any]."""
        return self.tokens.gather(1, sources[..., None].expand(-1, -1, self.tokens.shape[-1]))

    def result(self) -> Tensor:
        """The best hypothesis of each page, int64 [pages, count]; unfinished ones compete."""
        scores = self.sums[:, 0] / self.tokens.shape[-1]
        scores = scores.masked_fill(self.finished >= self.beams, -torch.inf)
        self._improve(scores, self.tokens[:, 0])
        return self.best


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
    """
    pages = memory.shape[0]
    memory = memory.repeat_interleave(beams, dim=0)
    hypotheses = Hypotheses(pages, beams, count, vocabulary, memory.device)
    cache = DecoderCache()
    last = torch.full((pages * beams, 1), vocabulary.start, device=memory.device)
    first_rows = torch.arange(pages, device=memory.device)[:, None] * beams
    # The cache grows with each token: a compiler would see another shape each time.
    with torch.compiler.set_stance("force_eager"):
        for at in range(count):
            logits = model(memory=memory, decoder_ids=last, cache=cache)  # [rows, 1, vocabulary]
            sources = hypotheses.extend(at, logits.view(pages, beams, -1))
            if stops_early and (hypotheses.finished >= beams).all():
                break
            if beams > 1:
                cache.select((first_rows + sources).flatten())
            last = hypotheses.tokens[:, :, at].reshape(-1, 1)
    return hypotheses.result()


def texts(tokens: Tensor, vocabulary: Vocabulary) -> list[str]:
    """Texts of `tokens` [batch, count], each up to its end token."""
    return [vocabulary.decode(row) for row in tokens.tolist()]
