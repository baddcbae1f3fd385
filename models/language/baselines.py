"""Simple methods beside the model: the frequencies of tokens, alone and after the previous one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
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
_NONE: Tokens = np.empty(0, np.int64)


def shares(labels: Tokens, size: int) -> Numbers:
    """The frequencies of `labels` among tokens below `size`, as Frequencies smooths them."""
    counts = np.bincount(labels, minlength=size)
    kinds = np.count_nonzero(counts)
    return (counts + kinds * (1 / size)) / (len(labels) + kinds)


class Frequencies(Module):
    """How often each token follows each context; measured as a language model is.

    The probability of a token is (its count + n × its prior) ÷ (count of the context + n), where n
    different tokens follow the context; it is never 0. After a context that never came, and without
    any counts, it is the prior. Source: Witten and Bell, The Zero-Frequency Problem, 1991, method
    C.
    """

    def __init__(
        self,
        priors: Numbers,
        inputs: Tokens = _NONE,
        labels: Tokens = _NONE,
    ) -> None:
        """Count `labels`, each after its token in `inputs`; `priors` [vocabulary] of all tokens."""
        super().__init__()
        self._priors = priors
        shape = (len(priors), len(priors))
        self._counts = csr_array((np.ones(len(labels)), (inputs, labels)), shape)
        self._kinds = np.diff(self._counts.indptr).clip(min=1)
        self._totals = self._counts.sum(axis=1) + self._kinds

        # After each context the likeliest token that came there, or the most frequent one.
        pairs = self._counts.nonzero()
        follower = csr_array((self.probabilities(*pairs), pairs), shape).argmax(axis=1)
        frequent = np.full_like(follower, priors.argmax())
        contexts = np.arange(len(priors))
        choices = np.stack((frequent, follower))
        best = self.probabilities(np.stack((contexts, contexts)), choices).argmax(axis=0)
        self.likeliest = choices[best, contexts]

    def probabilities(self, inputs: Tokens, labels: Tokens) -> Numbers:
        """The probability of each of `labels` after `inputs`."""
        counts = self._counts[inputs.ravel(), labels.ravel()].reshape(inputs.shape)
        kinds = self._kinds[inputs]
        return (counts + kinds * self._priors[labels]) / self._totals[inputs]

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
        is_correct = self.likeliest[inputs] == known_labels
        is_label = labels != IGNORE
        return torch.from_numpy(nats) * is_label, torch.from_numpy(is_correct) & is_label


def measure(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
    size: int,
    metric: Metric,
) -> list[Baseline]:
    """Unigram and bigram of tokens below `size`, as HasBaselines.baselines."""
    pairs = []
    total = 0
    for batch in train:
        both = torch.stack((batch["input_ids"], batch["labels"]))
        pairs.append(both[:, batch["labels"] != IGNORE].numpy())
        total += pairs[-1].shape[1]
        if total > MOST_TOKENS:
            break
    if total == 0:
        return []
    inputs, labels = np.concatenate(pairs, axis=1)
    unigram = shares(labels, size)
    bigram = Frequencies(unigram, inputs, labels)
    models = {UNIGRAM: Frequencies(unigram), BIGRAM: bigram}

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
