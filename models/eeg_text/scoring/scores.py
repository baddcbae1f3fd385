"""How near a written sentence is to the one that was read: ROUGE-1, BLEU, word error rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = 4


def rouge1(written: Sequence[str], read: Sequence[str]) -> float:
    """F1 of the words that both have, 0 to 1. Source: Lin, ROUGE, 2004."""
    both = sum((Counter(written) & Counter(read)).values())
    return 2 * both / (len(written) + len(read)) if both else 0.0


def bleu_counts(written: Sequence[str], read: Sequence[str]) -> np.ndarray:
    """What one sentence adds to a corpus's BLEU: words written, words read, then for each of four
    orders the n-grams that are right and those there are; float64 [10].

    The first of a corpus sum up; see `bleu`. Source: Papineni et al., BLEU, 2002.
    """
    counts = [len(written), len(read)]
    for order in range(1, ORDERS + 1):
        ours, theirs = _grams(written, order), _grams(read, order)
        counts += [sum((ours & theirs).values()), sum(ours.values())]
    return np.array(counts, dtype=np.float64)


def bleu(counts: Sequence[float]) -> list[float]:
    """BLEU-1 to BLEU-4 with brevity penalty, 0 to 1, of the summed counts of a corpus.

    Without smoothing: an order of which nothing is right gives 0.
    """
    written, read = counts[0], counts[1]
    if written == 0:
        return [0.0] * ORDERS
    penalty = min(1.0, float(np.exp(1 - read / written)))
    scores, product = [], 1.0
    for order in range(1, ORDERS + 1):
        right, there = counts[2 * order], counts[2 * order + 1]
        product *= right / there if there else 0.0
        scores.append(penalty * product ** (1 / order))
    return scores


def word_errors(written: Sequence[str], read: Sequence[str]) -> int:
    """Words to insert, delete or replace to make the one of the other."""
    row = list(range(len(read) + 1))
    for i, word in enumerate(written, start=1):
        before, row[0] = row[0], i
        for j, true in enumerate(read, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != true))
    return row[-1]


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
