"""The noise control: what is learnt once the input says nothing, and what chance then gives."""

from __future__ import annotations

from math import lgamma

import numpy as np

from models.base import DataError
from models.language.rows import Pairing, Windows


def mismatched(labels: np.ndarray, seed: int) -> np.ndarray:
    """For each request the position of an answer to one of another label, drawn at random.

    Each answer is taken once. Random and not shifted by a constant: from a constant shift the model
    could learn which label answers which. Raises DataError if more than half of `labels` are one.
    """
    counts = np.bincount(labels)
    if 2 * counts.max() > len(labels):
        raise DataError(
            f"the noise control cannot permute {len(labels)} answers: {counts.max()} of them "
            "are to one kind of request",
            where="data.control=noise",
            allowed="no kind of request with more than half of a split's exchanges",
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
    return order


def permuted(exchanges: np.ndarray, labels: np.ndarray, seed: int) -> Pairing:
    """Each of `exchanges`, of kind `labels`, with the answer to one of another kind."""
    answers = exchanges[mismatched(labels, seed)]
    return Pairing(exchanges, answers, np.zeros(len(exchanges), dtype=bool))


def with_true_answers(permuted: Pairing) -> Pairing:
    """`permuted`, and the true pairs marked as measured for comparison only."""
    requests = permuted.requests
    return Pairing(
        np.concatenate((requests, requests)),
        np.concatenate((permuted.answers, requests)),
        np.repeat([False, True], len(requests)),
    )


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
