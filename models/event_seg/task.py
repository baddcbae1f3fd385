"""The event_seg family: events since the last frame in, the edges of this frame out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.nn import Module

from models.base import (
    Batch,
    Context,
    DataError,
    Goal,
    Loss,
    Picture,
    Predictions,
    SplitName,
)
from models.common.split import save_split
from models.event_seg import dataset, windows
from models.event_seg.config import SIZES, Data, Model
from models.event_seg.dataset import Dataset
from models.event_seg.metric import EdgeMetric, MassMetric
from models.event_seg.network import Network, flops_per_sample
from models.event_seg.preview import draw, predict
from models.event_seg.readers import labels
from models.event_seg.readers.recording import Recording
from models.event_seg.splits import split_recordings
from models.event_seg.windows import Rules, Sample, Windows

PICTURES = 2


class EventSegTask:
    """See models/base.py: Task."""

    goal = Goal("val_iou", "max")
    units = "pixels"
    channels_last = True

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Reads the settings; touches no file."""
        self.context = context
        self.size, self.objective = SIZES[model.size], model.objective
        self.path, self.on_bad, self.control = data.path, data.on_bad, data.control
        self.fraction, self.downsample = data.fraction, data.downsample
        # A setting is read only where it means something: what nobody read is told to the person.
        self._data = data
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """What setup read."""
        assert self._dataset is not None, "setup() comes first"
        return self._dataset

    def setup(self) -> None:
        """Find the recordings, split them, count the pixels of both classes.

        Reads the disk, writes the split to the run folder and indices to the cache: rank 0 first,
        then the others. Raises DataError.
        """
        recordings, left_out = self._recordings()
        is_labelled = dataset.is_labelled(recordings, self.path, self.objective)
        if not is_labelled:
            self.goal = Goal("val_masked_r2", "max")
        share, seed = self.context.eval_share, self.context.seed
        split = split_recordings(
            recordings, self.fraction, share, seed, self.context.earlier_splits
        )
        if self.context.folder is not None:
            save_split(split.groups, self.context.folder, self.context.reset_data)
        rules = Rules(self.downsample, self.size.crop, self.control, seed, not is_labelled)
        formats = sorted({recording.format for recording in recordings})
        source = {"source": self.path, "format": ", ".join(formats), **left_out}
        self._dataset = Dataset(recordings, split, rules, source)

    def continue_from(self, first: EventSegTask) -> None:
        """See models/base.py: ContinualTask. Raises DataError for other labels or another sensor."""
        for old, new, what in (
            (first.dataset.rules.is_masked, self.dataset.rules.is_masked, "without labels"),
            (first.data("train").shape, self.data("train").shape, "height and width"),
        ):
            if old != new:
                raise DataError(
                    f"{what} is {new} of the data, and {old} of what the run learns",
                    where="data.path",
                    allowed=f"{what}: {old}",
                )

    def _recordings(self) -> tuple[Sequence[Recording], dict[str, Any]]:
        if dataset.is_embedded(self.path):
            from models.event_seg.embedded.shapes import recordings

            return recordings(self.size.sensor), {}
        return dataset.read_files(self.path, self._data, self.on_bad)

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator."""
        weight = 1.0 if self._dataset is None else self.dataset.foreground_weight
        recipe = (self.downsample, labels.LOW, labels.HIGH, labels.DILATION)
        return Network(self.size, weight, recipe)

    def data(self, split: SplitName) -> Windows:
        """The samples of a split."""
        return self.dataset.splits[split]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """See windows.collate."""
        return windows.collate(samples)

    def num_units(self, batch: Batch) -> int:
        """Pixels that count."""
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        """See Network.forward: summed over the pixels that count."""
        if "hidden" in batch:
            return Loss(model(batch["events"], batch["mass"], batch["hidden"]), {})
        return Loss(model(batch["events"], batch["mask"]), {})

    def metric(self) -> EdgeMetric | MassMetric:
        """See models/event_seg/metric.py."""
        return MassMetric() if self.dataset.rules.is_masked else EdgeMetric()

    def blocks(self, model: Module) -> list[Module]:
        """The layers, from the voxel grid to the maps."""
        assert isinstance(model, Network)
        return model.blocks

    def preview(self, model: Module) -> str | None:
        """None: there is no text to show."""
        return None

    def predictions(self, model: Module) -> Predictions:
        """See predictions.predict. Collective."""
        return predict(model, self.data("val"), self.context.device)

    def flops_per_sample(self, model: Module) -> float | None:
        """See network.flops_per_sample."""
        return flops_per_sample(self.size, *self.data("train").shape)

    def facts(self) -> Mapping[str, Any]:
        """See Dataset.facts."""
        return self.dataset.facts()

    def pictures(self) -> Sequence[Picture]:
        """Windows from within the training data. Reads them; raises DataError."""
        samples, rng = self.data("train"), np.random.default_rng(self.context.seed)
        places = {len(samples) * i // (PICTURES + 1) for i in range(1, PICTURES + 1)}
        return [draw(samples.drawn(i, rng), n) for n, i in enumerate(sorted(places), start=1)]
