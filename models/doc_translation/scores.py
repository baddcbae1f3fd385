"""BLEU from counts that add up exactly over batches and ranks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

ORDER = 4
SIZE = 2 * ORDER + 2
"""Numbers that BLEU needs of a corpus: matches and n-grams of each order, and two lengths."""

_NO_PLAIN_TEXT = re.compile(
    r"\\begin\{(table|tabular)(\*?)\}.*?\\end\{\1\2\}|\\\(.*?\\\)|\\\[.*?\\\]", re.DOTALL
)


def tokenizer_for(language: str) -> str:
    """sacrebleu's way to cut words of `language`, such as `zh` or `de`."""
    return "zh" if language.lower().split("-")[0].split("_")[0] == "zh" else "13a"


def plain_text(markdown: str) -> str:
    """`markdown` without tables and formulas: what BLEU-PT compares."""
    return _NO_PLAIN_TEXT.sub("", markdown)


class Bleu:
    """Corpus BLEU as sacrebleu counts it.

    Sources: Papineni et al., BLEU, 2002; Post, A Call for Clarity in Reporting BLEU Scores, 2018.
    """

    def __init__(self, tokenize: str) -> None:
        from sacrebleu.metrics import BLEU

        # Not to be told that the texts look tokenized: they are as the model wrote them.
        self._inner: Any = BLEU(tokenize=tokenize, force=True)

    def counts(self, written: Sequence[str], references: Sequence[str]) -> list[float]:
        """What pages add to the corpus: SIZE numbers. `written` is not empty."""
        found = self._inner.corpus_score(list(written), [list(references)])
        return [*found.counts, *found.totals, found.sys_len, found.ref_len]

    def score(self, counts: Sequence[float]) -> float:
        """BLEU of summed `counts`, in [0, 100]."""
        whole = [round(count) for count in counts]
        return float(
            self._inner.compute_bleu(
                correct=whole[:ORDER],
                total=whole[ORDER : 2 * ORDER],
                sys_len=whole[2 * ORDER],
                ref_len=whole[2 * ORDER + 1],
                smooth_method="exp",
                max_ngram_order=ORDER,
            ).score
        )

    @property
    def signature(self) -> str:
        """How BLEU was computed, to be quoted with it."""
        self._inner.corpus_score(["a"], [["a"]])  # it must have seen how many references there are
        return str(self._inner.get_signature())
