"""How often does a study with folds claim a difference between two equally good learners?

    python -m benchmarks.studies

Real cross-validation: each study draws a data set, and two nearest-centroid classifiers learn from
different halves of its features, which are equally informative. With few samples and many features
the training data decides which one is better by chance, and folds share it; with many samples and
few features they hardly do. The corrected test is the one of `compare --folds`; the plain one takes
folds as independent.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.figures import command, listed, machine, save_rows
from launcher.compare.statistics import estimate

CLASSES = 2
CASES = ((60, 100, 0.05), (200, 10, 0.35))
"""Samples, features of each learner, and the distance of class means from 0, in deviations."""


@dataclass(frozen=True)
class Row:
    """The share of studies that claim a difference, where there is none."""

    folds: int
    samples: int
    features: int
    studies: int
    corrected: float
    plain: float
    correlation: float
    """Of the differences of two folds, over studies; 1 / folds is assumed."""


def differences(
    generator: np.random.Generator, folds: int, samples: int, features: int, shift: float
) -> list[float]:
    """The accuracy of one learner minus that of the other, on each fold of a new data set."""
    labels = generator.permutation(np.arange(samples) % CLASSES)
    centers = np.where(labels == 1, shift, -shift)[:, None]
    inputs = centers + generator.standard_normal((samples, 2 * features))  # [sample, feature]
    fold_of = generator.permutation(np.arange(samples) % folds)
    halves = (inputs[:, :features], inputs[:, features:])
    found = []
    for fold in range(folds):
        held_out = fold_of == fold
        first, second = (accuracy(half, labels, held_out) for half in halves)
        found.append(first - second)
    return found


def accuracy(inputs: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> float:
    """Of the nearest centroid of the other samples, on those held out."""
    train = ~held_out
    centroids = [inputs[train & (labels == label)].mean(axis=0) for label in range(CLASSES)]
    distances = [np.square(inputs[held_out] - center).sum(axis=1) for center in centroids]
    return float(np.mean(np.argmin(distances, axis=0) == labels[held_out]))


def measured(folds: int, case: tuple[int, int, float], studies: int) -> Row:
    """The row of one number of folds in one of CASES."""
    generator = np.random.default_rng(folds)
    drawn = [differences(generator, folds, *case) for _ in range(studies)]
    corrected = np.mean([estimate(each, 1 / folds).is_larger_than_noise for each in drawn])
    plain = np.mean([estimate(each).is_larger_than_noise for each in drawn])
    covariance = np.cov(np.array(drawn), rowvar=False)  # [fold, fold]
    between = (covariance.sum() - np.trace(covariance)) / (folds * (folds - 1))
    correlation = between / (np.trace(covariance) / folds)
    rates = float(corrected), float(plain), float(correlation)
    return Row(folds, *case[:2], studies, *rates)


def main() -> int:
    """Print the table, and save it with --json."""
    parser = argparse.ArgumentParser(description=__doc__, add_help=True)
    parser.add_argument("--studies", type=int, default=4000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [measured(folds, case, options.studies) for case in CASES for folds in (2, 5, 10)]
    print("| folds | samples | features | corrected test | plain test | correlation of folds |")
    print("|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        rates = f"{row.corrected:.1%} | {row.plain:.1%} | {row.correlation:.3f}"
        print(f"| {row.folds} | {row.samples} | {row.features} | {rates} |")
    facts = machine(("numpy", "scipy"))
    print(listed(facts))
    if options.json is not None:
        save_rows(options.json, command("studies", sys.argv[1:]), facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
