"""Responses as samples of the splits, also in a noise control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from models.abr.config import CLASS_NAMES, CLASSES
from models.abr.responses import LABELS, STATIC_NAMES, Responses, Statistics
from models.base import Batch, Draws, SplitName
from models.common.data_files import few
from models.common.noise_control import samples_of_others
from models.common.split import SPLITS

Control = Literal["real", "noise", "noise-signal"]
MARGIN = 0.04
"""How far above chance macro-F1 may be."""


def chance_macro_f1(target: NDArray[np.int64]) -> float:
    """The macro-F1 of the best guess without any input, from the shares of the classes.

    The better of two: always the most frequent class, or each class equally often.
    """
    counts = np.unique(target[target >= 0], return_counts=True)[1]
    if not len(counts):
        return 0.0
    share, classes = counts / counts.sum(), len(counts)
    constant = 2 * share.max() / (1 + share.max()) / classes
    uniform = float(np.mean(2 * share / (1 + classes * share)))
    return max(constant, uniform)


Sample = dict[str, Any]
REPEATS = 16
"""Of each training level per epoch, if there are one or two recordings: a dozen make no batch."""


@dataclass(frozen=True)
class ResponseSplit:
    """The responses of one split; see models/base.py: Split."""

    responses: Responses
    statistics: Statistics
    index: NDArray[np.int64]
    """The response of each sample."""
    signal_of: NDArray[np.int64]
    """The response that provides its signal: the same, except in a noise control."""
    static_of: NDArray[np.int64]
    """The response that provides its examination facts."""

    def __len__(self) -> int:
        return len(self.index)

    def sample(self, index: int, draws: Draws) -> Sample:
        responses, response = self.responses, self.index[index]
        return {
            "signal": scaled_signal(responses.signal[self.signal_of[index]], self.statistics),
            "static": scaled_facts(responses.static[self.static_of[index]], self.statistics),
            "target": int(responses.target[response]),
            **{name: float(responses.labels[name][response]) for name in LABELS},
        }


def scaled_signal(signal: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """The input [1, 200] of the model for a signal [200] in µV."""
    return np.asarray(signal / np.float32(statistics.signal_rms), np.float32)[None]


def scaled_facts(facts: NDArray[np.float32], statistics: Statistics) -> NDArray[np.float32]:
    """The input [4] of the model for the facts of STATIC_NAMES; the mean for an unknown one."""
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


class ResponseSplits:
    """The samples of each split."""

    def __init__(
        self,
        responses: Responses,
        groups: NDArray[np.str_],
        splits: Mapping[SplitName, Sequence[str]],
        statistics: Statistics,
        control: Control,
        seed: int,
    ) -> None:
        """`groups`: the group of each response; `splits`: the groups of each split."""
        self.responses, self.splits, self.statistics = responses, splits, statistics
        self.control, self.by_level = control, groups is not responses.patient
        self.samples: dict[SplitName, ResponseSplit] = {}
        for number, name in enumerate(SPLITS):
            index = members(groups, splits[name])
            if self.by_level and name == "train":
                index = np.tile(index, REPEATS)
            signal_of = static_of = index
            if control != "real":
                # With one or two recordings, responses are exchanged between levels.
                group = responses.levels if self.by_level else responses.patient
                signal_of = index[samples_of_others(group[index], (seed, number))]
                static_of = signal_of if control == "noise" else index
            self.samples[name] = ResponseSplit(responses, statistics, index, signal_of, static_of)
        train = self.samples["train"].index
        known = {"signal", *(["class"] if (responses.target[train] >= 0).any() else [])}
        known |= {n for n in LABELS if np.isfinite(responses.labels[n][train]).any()}
        order = ("signal", "exists", "latency", "amplitude", "class", "threshold")
        self.terms = tuple(name for name in order if name in known)
        """The loss terms: the signal, and each label that some training response has."""

    def facts(self) -> dict[str, Any]:
        responses, origin = self.responses, self.responses.origin
        count = len(set(responses.patient))
        which = "patient or recording" if count == 1 else f"{count} patients or recordings"
        by_level = (
            f"by level of the only {which}, each training level {REPEATS} times per epoch: scores "
            "do not generalize to other ears"
        )
        unknown = [
            name
            for name, column in zip(STATIC_NAMES, responses.static.T, strict=True)
            if not np.isfinite(column).any()
        ]
        facts: dict[str, Any] = {
            "format": f"{origin.format}, {origin.species}, {origin.window_ms:g} ms",
            "unit": origin.unit,
            "split": by_level if self.by_level else f"by {origin.group}",
            "groups": {name: len(self.splits[name]) for name in SPLITS},
            "samples": {name: len(self.samples[name]) for name in SPLITS},
            "files_of_raters": dict(responses.marked),
            "classes": {n: self._classes(n) for n in SPLITS} if "class" in self.terms else {},
            "not_trained": [name for name in ("class", *LABELS) if name not in self.terms],
            "unknown": unknown,
            "left_out": dict(responses.left_out),
            "notes": few(responses.notes),
            "control": {} if self.control == "real" else self._control(),
        }
        return {name: value for name, value in facts.items() if value not in ([], {})}

    def _control(self) -> dict[str, dict[str, float]]:
        """The bounds of macro-F1 in a noise control.

        Without the signal alone (`noise-signal`) there is no bound: age, level and rate may carry
        information about the hearing loss.
        """
        if "class" not in self.terms:
            return {}
        chance = chance_macro_f1(self.responses.target[self.samples["val"].index])
        bounds = {"max": chance + MARGIN} if self.control == "noise" else {}
        return {"val_macro_f1": {"chance": chance, **bounds}}

    def _classes(self, name: SplitName) -> dict[str, int]:
        """The number of responses of each class, including 0."""
        target = self.responses.target[self.samples[name].index]
        counts = np.bincount(target[target >= 0], minlength=CLASSES)
        return dict(zip(CLASS_NAMES, counts.tolist(), strict=True))


def members(groups: NDArray[np.str_], chosen: Sequence[str]) -> NDArray[np.int64]:
    """The indices of the responses of the `chosen` groups."""
    return np.flatnonzero(np.isin(groups, list(chosen)))
