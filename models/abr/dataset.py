"""Responses as samples, and facts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from gearshift.models.abr.config import CLASS_NAMES
from gearshift.models.abr.loss import TERMS
from gearshift.models.abr.responses import LABELS, Responses, Signal, Statistics, even_facts, fit
from gearshift.models.base import Batch, Context
from gearshift.models.common.data_reports import few
from gearshift.models.common.family import FACTS_FILE, Numbers, load_facts, save_facts


def chance_macro_f1(target: Numbers) -> float:
    """The macro-F1 of the best guess without any input, from the shares of the classes.

    The better of two: always the most frequent class, or each class equally often.
    """
    counts = np.unique(target[target >= 0], return_counts=True)[1]
    if not len(counts):
        return 0.0
    share = counts / counts.sum()
    classes = len(counts)
    # Of a constant guess, only one class has an F1 above 0.
    constant = 2 * share.max() / (1 + share.max()) / classes
    return max(constant, float(np.mean(2 * share / (1 + classes * share))))


Sample = dict[str, Any]


def scaled_signal(
    signal: Signal,
    statistics: Statistics,
) -> Tensor:
    """The input [..., 1, 200] of the model for signals [..., 200] in µV."""
    return torch.from_numpy(signal / np.float32(statistics.signal_rms)).unsqueeze(-2)


def scaled_facts(
    facts: Signal,
    statistics: Statistics,
) -> Tensor:
    """The input [..., 4] of the model for facts of STATIC_NAMES; the mean for an unknown one."""
    even = even_facts(facts.astype(np.float64))
    scaled = (even - statistics.facts_mean) / statistics.facts_scale
    return torch.from_numpy(scaled).nan_to_num().float()


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch; unknown labels are 0 and masked.

    signal [batch, 1, 200], static [batch, 4], target [batch]; of each name in LABELS its values
    and its mask [batch].
    """
    batch = default_collate(list(samples))
    for name in LABELS:
        values = batch[name].float()
        # Unknown labels are NaN, which a mask alone would not hide: NaN times 0 is NaN.
        batch[name] = values.nan_to_num()
        batch[f"{name}_mask"] = values.isfinite()
    return batch


@dataclass(frozen=True)
class TrainedOnResponses:
    """What a model was trained on; saved in the run folder."""

    statistics: Statistics
    terms: tuple[str, ...]
    """The outputs that were trained."""
    species: str
    window_ms: float


def load_or_fit(
    responses: Responses,
    train: Numbers,
    context: Context,
) -> TrainedOnResponses:
    """What the run folder has saved; if there is nothing, fit it to the indices `train`."""
    folder = context.folder
    if folder is not None and (folder / FACTS_FILE).exists():
        return load_facts(folder, TrainedOnResponses)
    known = {name for name, column in responses.labels.items() if np.isfinite(column[train]).any()}
    known.add("signal")
    if (responses.target[train] >= 0).any():
        known.add("class")
    trained = TrainedOnResponses(
        fit(responses, train),
        tuple(term for term in TERMS if term in known),
        responses.origin.species,
        responses.origin.window_ms,
    )
    save_facts(trained, context)
    return trained


def facts(
    responses: Responses,
    terms: Collection[str],
    train: Numbers,
) -> dict[str, Any]:
    """What a user should know of the data; classes: of the training responses."""
    origin = responses.origin
    reading = responses.reading
    target = responses.target[train]
    classes = Counter(CLASS_NAMES[number] for number in target if number >= 0)
    facts = {
        "format": f"{origin.format}, {origin.species}, {origin.window_ms:g} ms",
        "unit": origin.unit,
        "classes": dict(classes),
        "not_trained": [name for name in TERMS if name not in terms],
        "left_out": dict(reading.left_out),
        "notes": few(reading.notes),
    }
    # What is empty is no news.
    return {name: value for name, value in facts.items() if value not in ([], {})}
