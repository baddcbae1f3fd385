"""Which tokens of a recording are hidden in masked pre-training."""

from __future__ import annotations

import numpy as np

SHORTEST, LONGEST = 2, 8
"""Tokens of a span: 16 to 64 ms."""


def spans(rng: np.random.Generator, tokens: int, share: float) -> np.ndarray:
    """Which of `tokens` are hidden, bool: spans that cover `share` of them, to the nearest token.

    Each is 2 to 8 tokens long, with one visible token between two at least. Too few tokens for
    one span have none.
    """
    hidden = np.zeros(tokens, dtype=bool)
    lengths = _lengths(rng, round(share * tokens))
    visible = tokens - sum(lengths)
    while lengths and visible < len(lengths) + 1:
        visible += lengths.pop()
    if not lengths:
        return hidden
    # Each order of hidden spans and visible tokens is equally likely.
    before = np.sort(rng.choice(visible + 1, len(lengths), replace=False))
    starts = before + np.concatenate(([0], np.cumsum(lengths)[:-1]))
    for start, length in zip(starts, lengths, strict=True):
        hidden[start : start + length] = True
    return hidden


def _lengths(rng: np.random.Generator, total: int) -> list[int]:
    """Lengths from 2 to 8 that add up to `total`; none where it is less than 2."""
    lengths: list[int] = []
    while total >= SHORTEST:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        if total - length < SHORTEST:
            # The rest is too short for a span of its own.
            length = total if total <= LONGEST else total - SHORTEST
        lengths.append(length)
        total -= length
    return lengths
