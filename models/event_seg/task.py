"""Task of the event_seg family: edges of a frame from the events since the previous frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Module

from models.base import Batch, Context, DataError, Goal, Loss, Picture, Prediction, Predictions, SplitName
from models.common import initial_weights, model_facts
from models.common.layers import count_flops
from models.common.split import SplitRule, save_split
from models.event_seg import dataset, prediction, splits, windows
from models.event_seg.config import BINS, SIZES, Data, Model
from models.event_seg.dataset import WindowSplits
from models.event_seg.metric import EdgeMetric
from models.event_seg.network import SegmentationNetwork
from models.event_seg.prediction import TrainedOnEvents
from models.event_seg.preview import draw_sample, predict
from models.event_seg.readers.recording import DILATION, HIGH, LOW, EventRecording
from models.event_seg.splits import split_recordings
from models.event_seg.windows import WindowRules, Windows

PICTURES = 2
_ENCODER = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"


class EventSegTask:
    """Edge segmentation of event windows; implements models.base.Task."""

    saved_files: Sequence[str] = (model_facts.FACTS_FILE,)
    """What setup_without_data reads in the run folder."""
    goal = Goal("val_iou", "max")
    units = "pixels"
    channels_last = True

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings without disk access."""
        self.context = context
        self.size, self.stage = SIZES[model.size], model.stage
        if model.widths is not None:
            self.size = replace(self.size, widths=tuple(model.widths))
        self.path, self.on_bad, self.control = data.path, data.on_bad, data.control
        self.rule, self.downsample = SplitRule.of(data, context), data.downsample
        # Read a setting only where it applies: unused settings are reported.
        self._data = data
        self.encoder, self.is_frozen = None, False
        if self.stage == "whole":
            self.is_frozen = model.freeze_encoder
            self.encoder = None if model.encoder is None else Path(model.encoder).expanduser()
        self.loaded: str | None = None
        self._dataset: WindowSplits | None = None
        self._trained: TrainedOnEvents  # after setup_without_data

    @property
    def dataset(self) -> WindowSplits:
        """The data that setup read."""
        assert self._dataset is not None, "call setup() first"
        return self._dataset

    def setup(self) -> None:
        """Find and split the recordings, and count the pixels of both classes.

        Disk access: writes the split to the run folder and indices to the cache; rank 0 first, then
        the other ranks. Raises DataError.
        """
        recordings, skipped = self._recordings()
        split = split_recordings(recordings, self.rule)
        if self.context.folder is not None:
            save_split(split.groups, self.context.folder, self.context.reset_data, self.rule)
        rules = WindowRules(self.downsample, self.size.crop, self.control, self.rule.seed)
        formats = sorted({recording.format.partition(" with ")[0] for recording in recordings})
        source = {"source": self.path, "format": ", ".join(formats), **skipped}
        self._dataset = WindowSplits(recordings, split, rules, source)
        window_ms = 1e3 * float(np.median(dataset.window_lengths(recordings)))
        trained = TrainedOnEvents(window_ms, recordings[0].sensor)
        model_facts.save(trained, self.context.folder)

    def setup_without_data(self) -> None:
        self._trained = model_facts.load(self.context.folder, TrainedOnEvents)
        self.encoder = None  # its weights are among the trained ones

    def continue_from(self, first: EventSegTask) -> None:
        """Check that height and width are those of `first`. Raises DataError."""
        old, new = first.data("train").shape, self.data("train").shape
        if old != new:
            raise DataError(
                f"height and width are {new} in the new data and {old} in the run",
                where="data.path",
                allowed=f"height and width {old}",
            )

    def _recordings(self) -> tuple[Sequence[EventRecording], dict[str, Any]]:
        if dataset.is_embedded(self.path):
            from models.event_seg.embedded import recordings

            clips = recordings(self.size.sensor)
            if not self._data.sequences:
                return clips, {}
            by_name = {clip.name: clip for clip in clips}
            names, facts = splits.choose(list(by_name), self._data.sequences)
            return [by_name[name] for name in names], facts
        return dataset.read_files(self.path, self._data, self.on_bad)

    def build(self) -> Module:
        """Build the model on the CPU with random weights, but for those of `model.encoder`.

        Raises DataError if that is no encoder of this size.
        """
        weight = 1.0 if self._dataset is None else self.dataset.foreground_weight
        recipe = (self.downsample, LOW, HIGH, DILATION)
        model = SegmentationNetwork(self.size, weight, recipe)
        if self.encoder is not None:
            key, path, parts = "model.encoder", self.encoder, ("down.",)
            self.loaded = initial_weights.load(key, model, path, _ENCODER, parts)
        if self.is_frozen:
            model.freeze(model.down)
        if self.stage == "encoder":
            model.train_only(model.down)
        return model

    def data(self, split: SplitName) -> Windows:
        return self.dataset.splits[split]

    collate = staticmethod(windows.collate)

    def num_units(self, batch: Batch) -> int:
        return batch["units"]

    def loss(self, model: Module, batch: Batch) -> Loss:
        return Loss(model(batch["events"], batch["mask"]), {})

    def metric(self) -> EdgeMetric:
        return EdgeMetric()

    def blocks(self, model: Module) -> list[Module]:
        assert isinstance(model, SegmentationNetwork)
        return model.blocks

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        return {part: [model.get_submodule(n)] for part, n in (("encoder", "down"), ("decoder", "up"))}

    def preview(self, model: Module) -> str | None:
        """None: the family has no text preview."""
        return None

    def predictions(self, model: Module) -> Predictions:
        """Predictions for a few validation windows. Collective."""
        return predict(model, self.data("val"), self.context.device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        given = self._trained, self._data.sensor, self.downsample, self.stage == "encoder"
        return prediction.predict(model, path, *given)

    def onnx_model(self, model: Module) -> tuple[Module, Mapping[str, Tensor]]:
        """From voxel grids to maps; of an encoder, to its features."""
        assert isinstance(model, SegmentationNetwork)
        grid = [side // self.downsample for side in self._trained.sensor]
        part = nn.Sequential(*model.down) if self.stage == "encoder" else model
        return part, {"events": torch.randn(4, BINS, *grid)}

    def flops_per_sample(self, model: Module) -> float | None:
        events = torch.zeros(1, BINS, *self.data("train").shape)
        return count_flops(model, [events], ("down",) if self.is_frozen else ())

    def facts(self) -> Mapping[str, Any]:
        loaded = {} if self.loaded is None else {"encoder": self.loaded}
        return self.dataset.facts() | loaded

    def pictures(self) -> Sequence[Picture]:
        samples, rng = self.data("train"), np.random.default_rng(self.context.seed)
        indices = {len(samples) * i // (PICTURES + 1) for i in range(1, PICTURES + 1)}
        shown = (samples.random_sample(index, rng) for index in sorted(indices))
        return [draw_sample(sample, number) for number, sample in enumerate(shown, start=1)]
