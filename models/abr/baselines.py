"""Simple methods beside the model: a guess without input, and a small forest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from gearshift.models.abr.config import CLASSES, STATIC
from gearshift.models.abr.dataset import chance_macro_f1
from gearshift.models.abr.metric import MEANS, auroc, macro_f1
from gearshift.models.abr.responses import LABELS
from gearshift.models.base import Baseline, Batch
from gearshift.models.common.family import Scores

Array = NDArray[np.float32]
Columns = Mapping[str, NDArray]
"""Tensors of `dataset.collate` over a split."""
Guess = Callable[[str, Array, Columns, Columns], Array]
"""From a term, the true values of responses, these and others, the values of the others."""


def baselines(train: Iterable[Batch], held_out: Iterable[Batch]) -> list[Baseline]:
    """What needs no network, for each label that both splits have; none without labels."""
    first = _columns(train)
    second = _columns(held_out)
    methods = {
        "the mean of all": _mean,
        "a forest on level and facts": _forest_on_facts,
        "a forest on points and facts": _forest_on_all,
    }
    results = []
    for name, guess in methods.items():
        metrics = {}
        for key, value in _scores(guess, first, second):
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


def _known(columns: Columns, term: str) -> tuple[Columns, NDArray]:
    """The responses with a label of `term`, and these labels."""
    name = term
    known = columns.get(f"{term}_mask")
    if known is None:
        name = "target"
        known = columns[name] >= 0
    chosen = {key: column[known] for key, column in columns.items()}
    return chosen, chosen[name]


def _scores(
    guess: Guess,
    train: Columns,
    held_out: Columns,
) -> Iterable[tuple[str, float | None]]:
    """The metrics of a method, by the names of `metric.scores`."""
    for term in ("class", *LABELS):
        first, labels = _known(train, term)
        second, true = _known(held_out, term)
        if not len(labels) or not len(true):
            continue
        if term == "class":
            labels = np.eye(CLASSES)[labels]
        else:
            labels = labels[:, None]
        guessed = guess(term, labels.astype(np.float32), first, second)
        if term == "class":
            scores = _of_classes(guessed, true)
            # Without input, the better of two guesses.
            if guess is _mean:
                scores = {"val_macro_f1": chance_macro_f1(true)}
            yield "val_macro_f1", scores["val_macro_f1"]
        elif term == "exists":
            yield "val_exists_auroc", _of_existence(guessed[:, 0], true > 0)
        else:
            error = np.abs(guessed[:, 0] - true).mean()
            yield MEANS[term], float(error)


def _of_classes(guessed: Array, true: NDArray) -> Scores:
    cells = true * CLASSES + guessed.argmax(1)
    confusion = np.bincount(cells, minlength=CLASSES**2)
    return macro_f1(torch.from_numpy(confusion).view(CLASSES, CLASSES))


def _of_existence(guessed: Array, exists: NDArray) -> float | None:
    values, ranks = np.unique(guessed, return_inverse=True)
    without = np.bincount(ranks[~exists], minlength=len(values))
    having = np.bincount(ranks[exists], minlength=len(values))
    return auroc(torch.from_numpy(without), torch.from_numpy(having))


def _mean(
    term: str,
    labels: Array,
    train: Columns,
    held_out: Columns,
) -> Array:
    # The median has the smallest mean absolute error.
    return np.tile(np.median(labels, axis=0), (len(held_out["static"]), 1))


def _forest_on_facts(
    term: str,
    labels: Array,
    train: Columns,
    held_out: Columns,
) -> Array:
    return forest(train["static"], labels, held_out["static"], _splits(term, STATIC))


def _forest_on_all(
    term: str,
    labels: Array,
    train: Columns,
    held_out: Columns,
) -> Array:
    inputs = _inputs(train)
    return forest(inputs, labels, _inputs(held_out), _splits(term, inputs.shape[1]))


def _inputs(columns: Columns) -> Array:
    return np.hstack([columns["signal"][:, 0], columns["static"]])


def _splits(term: str, inputs: int) -> int:
    """How many splits a node tries: of classes fewer, which makes trees differ more."""
    if term in ("class", "exists"):
        return max(STATIC, inputs // 3)
    return inputs


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
            split = _best_split(
                inputs[rows],
                labels[rows],
                splits,
                rng,
            )
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
    low = values.min(0)
    span = values.max(0) - low
    shares = rng.random(splits, np.float32)
    thresholds = low + span * shares
    above = (values > thresholds).astype(np.float32)

    # The sum over one side is minus that over the other.
    sums = above.T @ (labels - labels.mean(0))
    size = above.sum(0)
    rest = count - size
    gain = np.square(sums).sum(1)
    gain *= 1 / size.clip(1) + 1 / rest.clip(1)
    smaller = np.minimum(size, rest)
    gain[smaller < LEAF] = 0
    best = int(gain.argmax())
    if gain[best] <= 0:
        return None
    return int(columns[best]), float(thresholds[best])
