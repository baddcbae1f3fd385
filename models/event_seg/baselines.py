"""Baseline of the event_seg family: edges are where events have just been."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from gearshift.models.base import Baseline, Batch
from gearshift.models.event_seg.metric import overlap, scores

CHOICES = tuple(product((1, 2, 3), (3, 5, 7)))
"""How many of the last time bins, and how many pixels of a square's side."""
THRESHOLDS = torch.logspace(-2, 1, 200)
METRICS = ("val_iou", "precision", "recall", "f1")


def mass(
    events: Tensor,
    bins: int,
    side: int,
) -> Tensor:
    """The mass of the last `bins`, a mean over `side`² pixels around each: [batch, height, width].

    `events` [batch, bin, height, width] is the voxel grid; both signs count alike.
    """
    return F.avg_pool2d(
        events[:, -bins:].abs().sum(1),
        side,
        stride=1,
        padding=side // 2,
    )


def threshold_on_events(
    train: Iterable[Batch],
    held_out: Iterable[Batch],
) -> Baseline:
    """Foreground is where the mass exceeds a threshold, with the highest IoU on `train`."""
    bins, side, threshold = _fitted(train)
    sums: dict[str, Tensor] = {"loss": torch.zeros(())}
    for batch in held_out:
        foreground = mass(batch["events"], bins, side)
        maps = torch.stack((torch.full_like(foreground, threshold), foreground), 1)
        for key, count in overlap(maps, batch["mask"]).items():
            sums[key] = sums.get(key, 0) + count
    all_scores = scores(sums)
    return Baseline(
        "a threshold on recent events", {key: all_scores[key] or 0.0 for key in METRICS}
    )


def _fitted(batches: Iterable[Batch]) -> tuple[int, int, float]:
    """The choice and the threshold with the highest IoU."""
    ranks = len(THRESHOLDS) + 1
    counts = torch.zeros((len(CHOICES), 2, ranks), dtype=torch.long)
    for batch in batches:
        for number, choice in enumerate(CHOICES):
            rank = torch.bucketize(mass(batch["events"], *choice), THRESHOLDS)
            for kind in (0, 1):
                of_kind = rank[batch["mask"] == kind]
                counts[number, kind] += torch.bincount(of_kind, minlength=ranks)

    # Of each kind, the pixels above each threshold.
    above = counts.flip(2).cumsum(2).flip(2)[..., 1:]
    predicted_only, both = above.unbind(1)
    union = predicted_only + counts[:, 1].sum(1, keepdim=True)
    number, rank_of_best = divmod(int((both / union.clamp(min=1)).argmax()), len(THRESHOLDS))
    return (*CHOICES[number], float(THRESHOLDS[rank_of_best]))
