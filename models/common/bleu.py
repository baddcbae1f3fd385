"""BLEU of sacrebleu from counts that add up over batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

ORDER = 4
SIZE = 2 * ORDER + 2
"""Counts: matches and n-grams of each order, and lengths of what was written and of references."""


class Bleu:
    """Corpus BLEU.

    Sources: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """

    def __init__(self, tokenize: str, smoothing: str = "exp") -> None:
        """The tokenizer and the smoothing of sacrebleu."""
        from sacrebleu.metrics import BLEU

        # force: no warning about tokenized text, because it is model output.
        self._inner: Any = BLEU(tokenize=tokenize, smooth_method=smoothing, force=True)

    def counts(self, written: Iterable[str], references: Iterable[str]) -> list[float]:
        """Counts of non-empty `written` against `references`: SIZE numbers."""
        score = self._inner.corpus_score(list(written), [list(references)])
        return [*score.counts, *score.totals, score.sys_len, score.ref_len]

    def score(self, counts: Sequence[float], order: int = ORDER) -> float:
        """BLEU of n-grams up to `order` by summed `counts`, in [0, 100]."""
        whole = list(map(round, counts))
        score = self._inner.compute_bleu(
            whole[:order],
            whole[ORDER : ORDER + order],
            whole[-2],
            whole[-1],
            smooth_method=self._inner.smooth_method,
            max_ngram_order=order,
        )
        return float(score.score)

    @property
    def signature(self) -> str:
        """sacrebleu signature, to be reported with the score."""
        self._inner.corpus_score(["a"], [["a"]])  # sets the number of references
        return str(self._inner.get_signature())
