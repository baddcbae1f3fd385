"""Simple methods beside the model: a guess without input, and a small forest."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from gearshift.models.abr.config import CLASSES, STATIC
from gearshift.models.abr.dataset import chance_macro_f1
from gearshift.models.abr.loss import labels
from gearshift.models.abr.metric import BEST, counts, term_scores
from gearshift.models.abr.responses import LABELS
from gearshift.models.base import Baseline, Batch

Array = NDArray[np.float32]
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
    first = _joined(train)
    second = _joined(held_out)
    results = []
    for name, inputs in METHODS.items():
        metrics = {}
        for term in ("class", *LABELS):
            if not labels(first, term)[1].any() or not labels(second, term)[1].any():
                continue
            if term == "class" and not inputs:
                # The better of two guesses.
                value: float | None = chance_macro_f1(second["target"].numpy())
            else:
                output = _guess(term, inputs, first, second)
                value = term_scores(term, counts(term, output, second))[BEST[term]]
            if value is not None:
                metrics[BEST[term]] = value
        if metrics:
            results.append(Baseline(name, metrics))
    return results


def _joined(batches: Iterable[Batch]) -> Batch:
    parts = list(batches)
    return {name: torch.cat([batch[name] for batch in parts]) for name in parts[0]}


def _guess(
    term: str,
    inputs: tuple[str, ...],
    train: Batch,
    held_out: Batch,
) -> Tensor:
    """What a method with `inputs` says of `held_out`, as the output of the model for `term`."""
    label, known = labels(train, term)
    true = label[known].numpy()
    if not inputs:
        # The median has the smallest mean absolute error.
        return torch.full((len(held_out["target"]),), float(np.median(true)))
    asked = _inputs(held_out, inputs)
    targets = np.eye(CLASSES)[true] if term == "class" else true[:, None]
    splits = asked.shape[1]
    # Of classes fewer, which makes trees differ more.
    if term in ("class", "exists"):
        splits = max(STATIC, splits // 3)
    means = forest(
        _inputs(train, inputs)[known.numpy()],
        targets.astype(np.float32),
        asked,
        splits,
    )
    output = torch.from_numpy(means).squeeze(1)
    return output.logit(1e-6) if term == "exists" else output


def _inputs(
    batch: Batch,
    names: tuple[str, ...],
) -> Array:
    """`names` side by side, [row, input]."""
    return torch.cat([batch[name].flatten(1) for name in names], 1).numpy()


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
