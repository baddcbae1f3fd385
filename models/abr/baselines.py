"""Simple methods beside the model: a guess without input, and a small forest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from gearshift.models.abr.config import CLASSES, STATIC
from gearshift.models.abr.dataset import chance_macro_f1
from gearshift.models.abr.metric import MEANS, auroc, macro_f1
from gearshift.models.abr.responses import LABELS
from gearshift.models.base import Baseline, Batch

Array = NDArray[np.float32]
Columns = Mapping[str, NDArray]
"""Tensors of `dataset.collate` over a split."""
METHODS = {
    "the mean of all": (),
    "a forest on level and facts": ("static",),
    "a forest on points and facts": ("signal", "static"),
}
"""By the name of a method, its inputs."""


def baselines(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
) -> list[Baseline]:
    """What needs no network, for each label that both splits have; none without labels."""
    first = _columns(train)
    second = _columns(held_out)
    results = []
    for name, inputs in METHODS.items():
        metrics = {}
        for term in ("class", *LABELS):
            key, value = _score(
                term,
                inputs,
                _known(first, term),
                _known(second, term),
            )
            if value is not None:
                metrics[key] = value
        if metrics:
            results.append(Baseline(name, metrics))
    return results


def _columns(batches: Iterable[Batch]) -> Columns:
    parts = list(batches)
    columns = {}
    for name in parts[0]:
        columns[name] = torch.cat([batch[name] for batch in parts]).numpy()
    return columns


def _known(
    columns: Columns,
    term: str,
) -> Columns:
    """The responses with a label of `term`; `label` has these."""
    if term == "class":
        label = columns["target"]
        is_known = label >= 0
    else:
        label = columns[term]
        is_known = columns[f"{term}_mask"]
    return {key: column[is_known] for key, column in {**columns, "label": label}.items()}


def _score(
    term: str,
    inputs: tuple[str, ...],
    train: Columns,
    held_out: Columns,
) -> tuple[str, float | None]:
    """A metric of a method, by its name in `metric.scores`; None without a label."""
    labels = train["label"]
    true = held_out["label"]
    if not len(labels) or not len(true):
        return term, None
    if inputs:
        targets = np.eye(CLASSES)[labels] if term == "class" else labels[:, None]
        known = _joined(train, inputs)
        splits = known.shape[1]
        # Of classes fewer, which makes trees differ more.
        if term in ("class", "exists"):
            splits = max(STATIC, splits // 3)
        guessed = forest(
            known,
            targets.astype(np.float32),
            _joined(held_out, inputs),
            splits,
        )
    else:
        # The median has the smallest mean absolute error.
        guessed = np.full((len(true), 1), np.median(labels))
    if term == "class":
        # Without input, the better of two guesses.
        if not inputs:
            return "val_macro_f1", chance_macro_f1(true)
        confusion = np.bincount(true * CLASSES + guessed.argmax(1), minlength=CLASSES**2)
        scores = macro_f1(torch.from_numpy(confusion).view(CLASSES, CLASSES))
        return "val_macro_f1", scores["val_macro_f1"]
    if term == "exists":
        values, ranks = np.unique(guessed, return_inverse=True)
        cells = ranks.ravel() + len(values) * (true > 0)
        counts = np.bincount(cells, minlength=2 * len(values))
        without, having = torch.from_numpy(counts).view(2, -1)
        return "val_exists_auroc", auroc(without, having)
    return MEANS[term], float(np.abs(guessed[:, 0] - true).mean())


def _joined(
    columns: Columns,
    names: tuple[str, ...],
) -> Array:
    """The columns `names` side by side, [row, input]."""
    return np.hstack([columns[name].reshape(len(columns[name]), -1) for name in names])


TREES = 20
LEAF = 3
"""Training rows of the smallest leaf."""


def forest(
    inputs: Array,
    labels: Array,
    asked: Array,
    splits: int,
) -> Array:
    """The mean of extremely randomized trees for each row of `asked`, [row, output].

    They are fitted to `labels` [row, output] of `inputs` [row, input]; each node takes the best of
    `splits` random thresholds of random inputs. Source: Geurts et al., Extremely Randomized
    Trees, 2006.
    """
    rng = np.random.default_rng(0)
    total = np.zeros((len(asked), labels.shape[1]), np.float32)
    for _ in range(TREES):
        nodes = [(np.arange(len(inputs)), np.arange(len(asked)))]
        while nodes:
            rows, others = nodes.pop()
            split = _best_split(inputs[rows], labels[rows], splits, rng)
            if split is None:
                total[others] += labels[rows].mean(0)
                continue
            column, threshold = split
            above = inputs[rows, column] > threshold
            goes_above = asked[others, column] > threshold
            nodes.append((rows[above], others[goes_above]))
            nodes.append((rows[~above], others[~goes_above]))
    total /= TREES
    return total


def _best_split(
    inputs: Array,
    labels: Array,
    splits: int,
    rng: Generator,
) -> tuple[int, float] | None:
    """Column and threshold with the least squared error; None: the node is a leaf."""
    count = len(labels)
    if count < 2 * LEAF or not np.ptp(labels, axis=0).any():
        return None
    columns = rng.integers(inputs.shape[1], size=splits)
    values = inputs[:, columns]
    thresholds = values.min(0) + np.ptp(values, axis=0) * rng.random(splits, np.float32)
    above = (values > thresholds).astype(np.float32)

    # The sum over one side is minus that over the other.
    sums = above.T @ (labels - labels.mean(0))
    size = above.sum(0)
    rest = count - size
    gain = np.square(sums).sum(1)
    gain *= 1 / size.clip(1) + 1 / rest.clip(1)
    gain[np.minimum(size, rest) < LEAF] = 0
    best = int(gain.argmax())
    if gain[best] <= 0:
        return None
    return int(columns[best]), float(thresholds[best])
