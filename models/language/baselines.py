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
        self._is_unigram = prior is None
        self._size = size
        tokens = np.arange(size)
        if prior is None:
            self._priors = np.full(size, 1 / size)
        else:
            self._priors = prior.probabilities(tokens, tokens)
        self._pairs, self._counts = np.unique(
            self._contexts(inputs) * size + labels,
            return_counts=True,
        )
        contexts, followers = np.divmod(self._pairs, size)
        # After a context that never came, all is the prior's.
        self._kinds = np.bincount(contexts, minlength=size).clip(min=1)
        self._totals = np.bincount(contexts, self._counts, size) + self._kinds

        frequent = np.full(size, self._priors.argmax())
        self._likeliest = frequent.copy()
        order = np.lexsort((self._probability(contexts, followers), contexts))
        self._likeliest[contexts[order]] = followers[order]  # the last of each context stays
        is_likelier = self._probability(tokens, frequent) > self._probability(
            tokens,
            self._likeliest,
        )
        self._likeliest[is_likelier] = frequent[is_likelier]

    def _contexts(self, inputs: Tokens) -> Tokens:
        return 0 * inputs if self._is_unigram else inputs

    def _probability(self, contexts: Tokens, labels: Tokens) -> Numbers:
        pairs = contexts * self._size + labels
        at = np.searchsorted(self._pairs, pairs).clip(max=len(self._pairs) - 1)
        counts = np.where(self._pairs[at] == pairs, self._counts[at], 0)
        return (counts + self._kinds[contexts] * self._priors[labels]) / self._totals[contexts]

    def probabilities(self, inputs: Tokens, labels: Tokens) -> Numbers:
        """The probability of each of `labels` after `inputs`."""
        return self._probability(self._contexts(inputs), labels)

    def likeliest(self, inputs: Tokens) -> Tokens:
        """The likeliest token after each of `inputs`."""
        return self._likeliest[self._contexts(inputs)]

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
