"""Noise control: data without information in the input, and the chance level of each metric."""

from __future__ import annotations

from math import lgamma

import numpy as np

from models.base import DataError
from models.language.rows import Pairing, Windows


def permutation_across_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """Random permutation that gives each request the answer of a request with another label.

    Random, not shifted by a constant: a model could learn which label answers which from a
    constant shift. Raises DataError if more than half of `labels` are equal.
    """
    counts = np.bincount(labels)
    if 2 * counts.max() > len(labels):
        raise DataError(
            f"the noise control cannot permute {len(labels)} answers: {counts.max()} of them "
            "answer one kind of request",
            where="data.control=noise",
            allowed="at most half of a split's exchanges per kind of request",
        )
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    for i in range(len(order)):
        while labels[order[i]] == labels[i]:
            # A swap with j fixes i and must not break j. No label has more than half, so such a j
            # exists and the loop ends with probability one.
            j = int(rng.integers(len(order)))
            if labels[order[j]] != labels[i] and labels[order[i]] != labels[j]:
                order[i], order[j] = order[j], order[i]
    return order


def permute_answers(exchanges: np.ndarray, labels: np.ndarray, seed: int) -> Pairing:
    """Pair each of `exchanges` with the answer to a request of another label."""
    answers = exchanges[permutation_across_labels(labels, seed)]
    return Pairing(exchanges, answers, np.zeros(len(exchanges), dtype=bool))


def with_true_answers(permuted: Pairing) -> Pairing:
    """`permuted` followed by the true pairs, which are marked `matched`."""
    requests = permuted.requests
    return Pairing(
        np.concatenate((requests, requests)),
        np.concatenate((permuted.answers, requests)),
        np.repeat([False, True], len(requests)),
    )


def text_chance(train: Windows, val: Windows, size: int) -> dict[str, float]:
    """Expected loss on shuffled rows of `val` in nats per token, from token counts alone.

    `chance`: under the token frequencies of `train` (one added to each of the `size` counts).
    `floor`: under each row's own frequencies, that is the logarithm of the number of its orders.
    A loss below the floor indicates a leak.
    """
    frequencies = train.label_counts(size) + 1
    logp = np.log(frequencies / frequencies.sum())
    chance = orders = 0.0
    for i in range(len(val)):
        counts = np.bincount(val.row(i).labels, minlength=size)
        chance -= float(counts @ logp)
        orders += lgamma(counts.sum() + 1) - sum(lgamma(c + 1) for c in counts[counts > 1])
    return {"chance": chance / val.tokens, "floor": orders / val.tokens}


def dialogue_chance(labels: int) -> float:
    """Upper bound of exact_match: twice the share of guessing one of `labels`."""
    return 2 / labels
