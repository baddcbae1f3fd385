"""Simple methods beside the model: the frequencies of tokens, alone and after the previous one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from gearshift.models.base import Baseline, Batch, Metric
from gearshift.models.language.model import IGNORE

MOST_TOKENS = 2**21
"""About so many labels are counted at most."""
UNIGRAM = "token frequencies (unigram)"
BIGRAM = "token frequencies after the previous token (bigram)"

Tokens = NDArray[np.int64]
Numbers = NDArray[np.float64]


class Frequencies(Module):
    """How often each token follows each context; measured as a language model is.

    The probability of a token is (its count + n × its prior) ÷ (count of the context + n), where n
    different tokens follow the context; it is never 0. Source: Witten and Bell, The Zero-Frequency
    Problem, 1991, method C.
    """

    def __init__(
        self,
        inputs: Tokens,
        labels: Tokens,
        size: int,
        prior: Frequencies | None = None,
    ) -> None:
        """Count `labels`, each after its token in `inputs`; all are below `size`.

        `prior`: the frequencies of single tokens. None: these are counted, one context for all
        inputs, and their prior is 1 ÷ size.
        """
        super().__init__()
        self._size = size
        self._prior = prior
        pairs, counts = np.unique(self._pairs(inputs, labels), return_counts=True)
        contexts, followers = np.divmod(pairs, size)
        self._contexts, first, kinds = np.unique(
            contexts,
            return_index=True,
            return_counts=True,
        )
        totals = np.add.reduceat(counts, first)
        self._shares = kinds / (totals + kinds)
        """The probability that the prior has of each context."""
        self._known = pairs
        prior_parts = np.repeat(self._shares, kinds) * self._priors(followers)
        self._probabilities = counts / np.repeat(totals + kinds, kinds) + prior_parts

        # The last follower of each context has the highest probability.
        order = np.lexsort((self._probabilities, contexts))
        best = order[first + kinds - 1]
        self._likeliest = followers[best]
        if prior is not None:
            frequent = np.full_like(self._likeliest, prior._likeliest[0])
            is_likelier = self.probabilities(self._contexts, frequent) > self._probabilities[best]
            self._likeliest = np.where(
                is_likelier,
                frequent,
                self._likeliest,
            )

    def _pairs(self, inputs: Tokens, labels: Tokens) -> Tokens:
        """A number for each pair of context and label."""
        if self._prior is None:
            return labels
        return inputs * self._size + labels

    def _priors(self, labels: Tokens) -> Numbers:
        if self._prior is None:
            return np.full(labels.shape, 1 / self._size)
        return self._prior.probabilities(labels, labels)

    def probabilities(
        self,
        inputs: Tokens,
        labels: Tokens,
    ) -> Numbers:
        """The probability of each of `labels` after `inputs`."""
        pairs = self._pairs(inputs, labels)
        at, is_known = _find(self._known, pairs)
        context, has_context = _find(self._contexts, pairs // self._size)
        shares = np.where(has_context, self._shares[context], 1.0)
        return np.where(
            is_known,
            self._probabilities[at],
            shares * self._priors(labels),
        )

    def likeliest(self, inputs: Tokens) -> Tokens:
        """The likeliest token after each of `inputs`."""
        context, has_context = _find(self._contexts, self._pairs(inputs, 0 * inputs) // self._size)
        if self._prior is None:
            return self._likeliest[context]
        return np.where(
            has_context,
            self._likeliest[context],
            self._prior.likeliest(inputs),
        )

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        **_: object,
    ) -> tuple[Tensor, Tensor]:
        """As Transformer.forward with `measure`."""
        inputs = input_ids.numpy()
        known_labels = labels.clamp(min=0).numpy()
        nats = -np.log(self.probabilities(inputs, known_labels))
        is_correct = self.likeliest(inputs) == known_labels
        is_label = labels != IGNORE
        return torch.from_numpy(nats) * is_label, torch.from_numpy(is_correct) & is_label


def _find(known: Tokens, wanted: Tokens) -> tuple[Tokens, NDArray[np.bool_]]:
    """Where each of `wanted` is in the sorted `known`, and whether it is there."""
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return at, known[at] == wanted


def measure(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
    size: int,
    metric: Metric,
) -> list[Baseline]:
    """Unigram and bigram of tokens below `size`, as HasBaselines.baselines."""
    inputs = []
    labels = []
    total = 0
    for batch in train:
        is_label = batch["labels"] != IGNORE
        inputs.append(batch["input_ids"][is_label].numpy())
        labels.append(batch["labels"][is_label].numpy())
        total += len(labels[-1])
        if total > MOST_TOKENS:
            break
    if total == 0:
        return []
    tokens = np.concatenate(inputs), np.concatenate(labels)
    unigram = Frequencies(*tokens, size)
    models = {UNIGRAM: unigram, BIGRAM: Frequencies(*tokens, size, prior=unigram)}

    sums = dict.fromkeys(models, torch.zeros(()))
    for batch in held_out:
        for name, model in models.items():
            sums[name] = sums[name] + metric.update(model, batch)
    baselines = []
    for name, counts in sums.items():
        scores = metric.result(counts)
        known = {key: score for key, score in scores.items() if score is not None}
        baselines.append(Baseline(name, known))
    return baselines
