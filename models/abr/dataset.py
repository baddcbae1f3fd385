"""Responses as samples, and facts of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gearshift.models.abr.config import CLASS_NAMES, CLASSES
from gearshift.models.abr.loss import TERMS
from gearshift.models.abr.responses import (
    LABELS,
    STATIC_NAMES,
    Numbers,
    Responses,
    Signal,
    Statistics,
)
from gearshift.models.base import Batch, SplitName
from gearshift.models.common.data_files import few

MARGIN = 0.04
"""How far above chance macro-F1 may be."""


def chance_macro_f1(target: Numbers) -> float:
    """The macro-F1 of the best guess without any input, from the shares of the classes.

    The better of two: always the most frequent class, or each class equally often.
    """
    counts = np.unique(target[target >= 0], return_counts=True)[1]
    if not len(counts):
        return 0.0
    share = counts / counts.sum()
    classes = len(counts)
    constant = 2 * share.max() / (1 + share.max()) / classes
    uniform = float(np.mean(2 * share / (1 + classes * share)))
    return max(constant, uniform)


Sample = dict[str, Any]


def sample(
    responses: Responses, statistics: Statistics, number: int, signal_of: int, facts_of: int
) -> Sample:
    """The labels of response `number`, with the signal and the facts of two others in a control."""
    return {
        "signal": scaled_signal(responses.signal[signal_of], statistics),
        "static": scaled_facts(responses.static[facts_of], statistics),
        "target": int(responses.target[number]),
        **{name: float(responses.labels[name][number]) for name in LABELS},
    }


def scaled_signal(signal: Signal, statistics: Statistics) -> Signal:
    """The input [..., 1, 200] of the model for signals [..., 200] in µV."""
    return np.asarray(signal / np.float32(statistics.signal_rms), np.float32)[..., None, :]


def scaled_facts(facts: Signal, statistics: Statistics) -> Signal:
    """The input [..., 4] of the model for facts of STATIC_NAMES; the mean for an unknown one."""
    scaled = (facts.astype(np.float64) - statistics.static_mean) / statistics.static_scale
    return np.nan_to_num(scaled).astype(np.float32)


def collate(samples: Sequence[Sample]) -> Batch:
    """One batch; unknown labels are 0 and masked.

    signal [batch, 1, 200], static [batch, 4], peak and peak_mask [batch, 2]: latency and
    amplitude; exists, threshold, their masks, and target [batch].
    """
    labels = {name: torch.tensor([sample[name] for sample in samples]) for name in LABELS}
    known = {name: column.isfinite() for name, column in labels.items()}
    values = {name: column.nan_to_num() for name, column in labels.items()}
    return {
        "signal": torch.from_numpy(np.stack([sample["signal"] for sample in samples])),
        "static": torch.from_numpy(np.stack([sample["static"] for sample in samples])),
        "peak": torch.stack([values["latency"], values["amplitude"]], 1),
        "peak_mask": torch.stack([known["latency"], known["amplitude"]], 1),
        "exists": values["exists"],
        "exists_mask": known["exists"],
        "target": torch.tensor([sample["target"] for sample in samples]),
        "threshold": values["threshold"],
        "threshold_mask": known["threshold"],
    }


def known_terms(responses: Responses, train: Numbers) -> tuple[str, ...]:
    """The loss terms: the signal, and each label that some training response has."""
    known = {name: np.isfinite(column[train]) for name, column in responses.labels.items()}
    known["class"] = responses.target[train] >= 0
    return tuple(term for term in TERMS if term == "signal" or known[term].any())


def facts(
    responses: Responses, terms: Collection[str], numbers: Mapping[SplitName, Numbers]
) -> dict[str, Any]:
    """What a user should know of the data; `numbers`: the responses of each split."""
    origin = responses.origin
    labels = {split: responses.target[index] for split, index in numbers.items()}
    counts = {
        split: np.bincount(each[each >= 0], minlength=CLASSES) for split, each in labels.items()
    }
    classes = {
        split: dict(zip(CLASS_NAMES, each.tolist(), strict=True)) for split, each in counts.items()
    }
    columns = zip(STATIC_NAMES, responses.static.T, strict=True)
    facts: dict[str, Any] = {
        "format": f"{origin.format}, {origin.species}, {origin.window_ms:g} ms",
        "unit": origin.unit,
        "files_of_raters": dict(responses.reading.marked),
        "classes": classes if "class" in terms else {},
        "not_trained": [name for name in ("class", *LABELS) if name not in terms],
        "unknown": [name for name, column in columns if not np.isfinite(column).any()],
        "left_out": dict(responses.reading.left_out),
        "notes": few(responses.reading.notes),
    }
    return {name: value for name, value in facts.items() if value not in ([], {})}


def bounds(
    responses: Responses, terms: Collection[str], val: Numbers, control: str
) -> dict[str, dict[str, float]]:
    """The bounds of macro-F1 in a noise control.

    Without the signal alone (`noise-signal`) there is no bound: age, level and rate may carry
    information about the hearing loss.
    """
    if "class" not in terms:
        return {}
    chance = chance_macro_f1(responses.target[val])
    return {
        "val_macro_f1": {
            "chance": chance,
            **({"max": chance + MARGIN} if control == "noise" else {}),
        }
    }
