"""Methods without a model: one sentence for all EEG, and interpolation across masked gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from gearshift.models.base import Baseline, Batch
from gearshift.models.common.bleu import Bleu
from gearshift.models.common.family import spread_positions
from gearshift.models.eeg_text.masked_series import masked_scores
from gearshift.models.eeg_text.metric import Words, error_counts, error_scores, masked_sums, rouge1
from gearshift.models.eeg_text.recordings import words

CANDIDATES = 100
"""Training sentences that are tried."""
COMPARED = 300
"""Training sentences they are compared with."""


def constant_sentence(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
) -> list[Baseline]:
    """The words that share most with training sentences, for all EEG."""
    training: list[Words] = []
    for batch in train:
        training += map(words, batch["meta"]["sentence"])
    read: list[Words] = []
    for batch in held_out:
        read += map(words, batch["text"])

    bleu = Bleu("none", "none")
    best = _best(training)
    metrics = {
        "val_rouge1": _mean_rouge1(best, read),
        "val_rouge1_gain": 0.0,  # what does not depend on the EEG gains nothing
        **error_scores(bleu, error_counts(bleu, [best] * len(read), read)),
    }
    return [Baseline("one sentence for all EEG", metrics)]


def _best(training: Sequence[Words]) -> Words:
    """The candidate with the highest mean ROUGE-1 for training sentences."""
    distinct = sorted(set(map(tuple, training)))
    candidates: list[Words] = [distinct[i] for i in spread_positions(len(distinct), CANDIDATES)]

    # The few words that most sentences have.
    sentences_of_word: Counter[str] = Counter()
    for sentence in training:
        # Each word once, in an order that is the same in each process.
        sentences_of_word.update(dict.fromkeys(sentence, 1))
    common = [word for word, _ in sentences_of_word.most_common(max(map(len, training)))]
    candidates += [common[:count] for count in range(1, 1 + len(common))]

    some = [training[i] for i in spread_positions(len(training), COMPARED)]
    return max(candidates, key=lambda candidate: _mean_rouge1(candidate, some))


def _mean_rouge1(written: Words, read: Sequence[Words]) -> float:
    return sum(rouge1(written, sentence) for sentence in read) / len(read)


def _no_guess(eeg: Tensor, *_: Tensor) -> Tensor:
    return torch.zeros_like(eeg)


def interpolation(_: Iterable[Batch], held_out: Iterable[Batch]) -> list[Baseline]:
    """The mean of the masked values, and lines between the ends of their gaps."""
    counts: Any = sum(masked_sums(_no_guess, batch)["masked"] for batch in held_out)
    explained = masked_scores({"masked": counts})["val_interpolation_r2"]
    return [
        Baseline("the mean", {"val_masked_r2": 0.0}),
        Baseline("linear interpolation across the gaps", {"val_masked_r2": explained}),
    ]
