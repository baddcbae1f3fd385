"""The noise control: what is learnt once the input says nothing, and what chance then gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import lgamma

import numpy as np

from models.base import DataError
from models.language.packing import Windows
from models.language.records import Exchange


def mismatched(exchanges: Sequence[Exchange], seed: int) -> list[Exchange]:
    """The same requests, each with the answer to one of another label, drawn at random.

    Random and not shifted by a constant: from a constant shift the model could learn which label
    answers which. Raises DataError if more than half of the exchanges have one label.
    """
    labels = np.unique([e.label for e in exchanges], return_inverse=True)[1]
    counts = np.bincount(labels)
    if 2 * counts.max() > len(labels):
        raise DataError(
            f"the noise control cannot permute {len(labels)} answers: {counts.max()} of them "
            "are to one kind of request",
            where="data.control=noise",
            legal="no kind of request with more than half of a split's exchanges",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    for i in range(len(order)):
        while labels[order[i]] == labels[i]:
            # Swapping with j mends i and must not break j. As no label has more than half, some
            # j does; the draw ends with probability one.
            j = int(rng.integers(len(order)))
            if labels[order[j]] != labels[i] and labels[order[i]] != labels[j]:
                order[i], order[j] = order[j], order[i]
    return [replace(e, answer=exchanges[k].answer) for e, k in zip(exchanges, order, strict=True)]


def with_true_answers(shuffled: Sequence[Exchange], true: Sequence[Exchange]) -> list[Exchange]:
    """`shuffled`, and the `true` exchanges marked as measured for comparison only."""
    return [*shuffled, *(replace(e, matched=True) for e in true)]


def text_chance(train: Windows, val: Windows, size: int) -> dict[str, float]:
    """What shuffled rows of `val` cost in nats per token, from the counts of tokens alone.

    `chance`: by the token frequencies of `train` (one added to each of the `size` counts).
    `floor`: by each row's own frequencies, were they known beforehand; the logarithm of the number
    of its orders. A loss below the floor has seen what it should not.
    """
    seen = train.label_counts(size) + 1
    logp = np.log(seen / seen.sum())
    chance = orders = 0.0
    for i in range(len(val)):
        counts = np.bincount(val.row(i).labels, minlength=size)
        chance -= float(counts @ logp)
        orders += lgamma(counts.sum() + 1) - sum(lgamma(c + 1) for c in counts[counts > 1])
    return {"chance": chance / val.tokens, "floor": orders / val.tokens}


def dialogue_chance(labels: int) -> float:
    """The upper bound of exact answers: twice the share that guessing one of `labels` gives."""
    return 2 / labels
