"""Task of the event_seg family: edges of a frame from the events since the previous frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Module

from gearshift.models.base import Baseline, Batch, Context, DataError, Goal, Loss
from gearshift.models.common.family import (
    ENCODER,
    FACTS_FILE,
    FamilyTask,
    Sums,
    load_facts,
    save_facts,
)
from gearshift.models.common.split import SPLITS
from gearshift.models.event_seg import dataset, metric, showing, windows
from gearshift.models.event_seg.config import BINS, SIZES, Data, Model
from gearshift.models.event_seg.network import SegmentationNetwork
from gearshift.models.event_seg.readers.recording import DILATION, HIGH, LOW, EventRecording, Sides
from gearshift.models.event_seg.showing import TrainedOnEvents
from gearshift.models.event_seg.splits import split_recordings
from gearshift.models.event_seg.windows import Windows

MAX_FOREGROUND_WEIGHT = 10.0
"""Maximum weight of the foreground in the loss."""
MARGIN = 0.03
"""Maximum excess of a noise control over chance."""


class EventSegTask(FamilyTask):
    """Edge segmentation of event windows; see models/base.py: Task."""

    saved_files = (FACTS_FILE,)
    goal = Goal("val_iou", "max")
    units = "pixels"
    channels_last = True
    parts: Mapping[str, Sequence[str]] = {"encoder": ("down",), "decoder": ("up",)}
    recordings: Sequence[EventRecording]  # these after setup
    foreground: dict[str, float]
    """Share of the foreground in the labels of train and val."""
    trained: TrainedOnEvents  # after setup_without_data

    def __init__(
        self,
        model: Model,
        data: Data,
        context: Context,
    ) -> None:
        """Read the settings without disk access."""
        super().__init__(model, data, context)
        self.size = SIZES[model.size]
        if model.widths is not None:
            self.size = replace(self.size, widths=tuple(model.widths))
        self.downsample = data.downsample
        self.foreground = {}

    def setup(self) -> None:
        """Find and split the recordings, and count the pixels of both classes.

        Disk access: writes the split to the run folder and indices to the cache; rank 0 first, then
        the other ranks. Raises DataError, also if the training labels have one class only.
        """
        self.recordings, self._read_facts = dataset.read(self.data_settings, self.size.sensor)
        self.groups, of_split, self._method = split_recordings(self.recordings, self.rule)
        self.save_split(self.groups)
        for number, name in enumerate(SPLITS):
            samples = Windows(
                self.recordings,
                of_split[name],
                number or None,
                self.downsample,
                self.size.crop,
                self.data_settings.control,
                self.rule.seed,
            )
            self.splits[name] = samples
            if name != "test":
                self.foreground[name] = samples.foreground()
        share = self.foreground["train"]
        if not 0 < share < 1:
            raise DataError(
                f"all training labels are {'foreground' if share else 'background'}",
                where="data.path",
                allowed="both classes",
            )
        window_ms = 1e3 * float(np.median(dataset.window_lengths(self.recordings)))
        save_facts(TrainedOnEvents(window_ms, self.recordings[0].sensor), self.context)

    def setup_without_data(self) -> None:
        self.trained = load_facts(self.context.folder, TrainedOnEvents)
        self.encoder = None  # the initial weights are among the trained ones

    def continue_from(self, first: EventSegTask) -> None:
        """Check that height and width are those of `first`. Raises DataError."""
        old = first.data("train").shape
        new = self.data("train").shape
        if old != new:
            raise DataError(
                f"height and width are {new} in the new data and {old} in the run",
                where="data.path",
                allowed=f"height and width {old}",
            )

    @property
    def foreground_weight(self) -> float:
        """Weight of class 1 in the loss; 1 without data and setting."""
        if self.model_settings.foreground_weight is not None:
            return float(self.model_settings.foreground_weight)
        share = self.foreground.get("train", 0.5)
        return min(MAX_FOREGROUND_WEIGHT, (1 - share) / share)

    def network(self) -> SegmentationNetwork:
        return SegmentationNetwork(
            self.size, self.foreground_weight, (self.downsample, LOW, HIGH, DILATION)
        )

    collate = staticmethod(windows.collate)

    def loss(
        self,
        model: Module,
        batch: Batch,
    ) -> Loss:
        return Loss(model(batch["events"], batch["mask"]), {})

    def metric(self) -> Sums:
        return Sums(metric.measure, metric.scores)

    def baselines(
        self,
        train: Iterable[Batch],
        held_out: Iterable[Batch],
    ) -> Sequence[Baseline]:
        from gearshift.models.event_seg.baselines import threshold_on_events

        return [threshold_on_events(train, held_out)]

    def blocks(self, model: Any) -> list[Module]:
        return list(model.blocks)

    def example(self) -> Sequence[Tensor]:
        return [torch.zeros(1, BINS, *self.data("train").shape)]

    pictures = showing.pictures
    predictions = showing.predictions
    predict = showing.predict

    def part(self, model: Any) -> Module:
        """What predicts: from voxel grids to maps; of an encoder, to its features."""
        if self.stage == ENCODER:
            return nn.Sequential(*model.down)
        return model

    def grid(self, sensor: Sides) -> Sides:
        """Height and width of a voxel grid for a sensor."""
        height, width = sensor
        return height // self.downsample, width // self.downsample

    def onnx_model(self, model: Module) -> tuple[Module, Mapping[str, Tensor]]:
        return self.part(model), {"events": torch.randn(4, BINS, *self.grid(self.trained.sensor))}

    def facts(self) -> Mapping[str, Any]:
        foreground = {name: round(share, 4) for name, share in self.foreground.items()}
        foreground["weight"] = round(self.foreground_weight, 3)
        height, width = self.data("val").shape
        facts: dict[str, Any] = {
            "source": self.data_settings.path,
            **self._read_facts,
            **dataset.facts(self.recordings),
            **super().facts(),
            "split": self._method,
            "foreground": foreground,
        }
        facts["sensor"] += f", downsampled by {self.downsample}, samples of {height}×{width}"
        if self.data_settings.control != "real":
            # Outside its bounds a noise control indicates a leak.
            chance = self.foreground["val"]
            facts["control"] = {"val_iou": {"max": chance + MARGIN, "chance": chance}}
        return facts
