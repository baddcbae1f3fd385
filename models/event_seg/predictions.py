"""What the model tells of a few windows, for a person to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Predictions
from models.common.chosen import few
from models.event_seg.metric import EdgeMetric, MassMetric
from models.event_seg.pictures import compare, name
from models.event_seg.windows import Sample, Windows, collate

SHOWN = 4
INPUTS = ("events", "mask", "mass", "hidden")


def predict(model: Module, windows: Windows, device: torch.device) -> Predictions:
    """Windows spread over a split, each with its scores. One forward pass, collective."""
    samples: list[Sample] = few(windows, SHOWN)
    batch = {key: x.to(device) for key, x in collate(samples).items() if key in INPUTS}
    metric = MassMetric() if windows.rules.is_masked else EdgeMetric()
    given = [batch[key] for key in ("events", "mass", "hidden", "mask") if key in batch]
    loss, maps = model(*given, measure=True)
    scores = [_scores(metric, loss, maps, batch, row) for row in range(len(samples))]
    rows, pictures = [], []
    for number, (sample, own) in enumerate(zip(samples, maps.cpu().numpy(), strict=True)):
        rows.append((name(sample), sample.meta["events"], *scores[number].values()))
        pictures.append(compare(sample, own, number + 1))
    return Predictions(("window", "events", *scores[0]), rows, pictures)


def _scores(
    metric: EdgeMetric | MassMetric, loss: Tensor, maps: Tensor, batch: Mapping[str, Any], row: int
) -> dict[str, float]:
    """The metrics of one sample, but for the loss, which is of all."""
    own = {key: x[row : row + 1] for key, x in batch.items()}
    found = metric.result(metric.counts(loss, maps[row : row + 1], own).cpu())
    wanted = ("val_iou", "precision", "recall", "val_masked_r2")
    return {key.removeprefix("val_"): found[key] for key in wanted if key in found}
