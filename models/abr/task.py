"""The task of the abr family: reconstruction, wave V, hearing loss and threshold of a response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from models.abr import dataset, responses, showing
from models.abr.config import POINTS, SIZES, STATIC, Data, Model
from models.abr.dataset import ResponseSplit, ResponseSplits, members
from models.abr.embedded import PATIENTS, read_patients
from models.abr.formats import of_file
from models.abr.loss import TERMS, TermRamps, TermSums, units
from models.abr.metric import ResponseMetric
from models.abr.network import ENCODER, PEAK, Network, UnscaledNetwork
from models.abr.network import flops_per_sample as flops_of
from models.abr.readers.files import read_responses
from models.abr.responses import Responses, Statistics, load_or_fit
from models.abr.showing import TrainedOnResponses
from models.base import (
    Batch,
    Context,
    DataError,
    Goal,
    Loss,
    NumUnits,
    Picture,
    Prediction,
    Predictions,
    SplitName,
)
from models.common import initial_weights, layers, model_facts
from models.common.data_files import files, unknown_embedded
from models.common.predictions import input_errors, passed_over
from models.common.recordings import bids
from models.common.split import SPLITS, SplitRule, save_split, split_groups

BY_CLASS = Goal("val_macro_f1", "max")
_ENCODER = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"


class AbrTask:
    """See models/base.py: Task."""

    goal, units = BY_CLASS, "samples"
    channels_last = False
    saved_files: Sequence[str] = (model_facts.FACTS_FILE, responses.FILE)
    """What setup_without_data reads in the run folder."""

    def __init__(self, model: Model, data: Data, context: Context) -> None:
        """Read the settings; touches no file. Raises DataError for an invalid attention kernel."""
        self.context = context
        self.size = SIZES[model.size]
        # Settings without effect are not read, so that they are reported as unused.
        self.encoder, self.is_frozen, self.stage = None, False, model.stage
        self._read_loss(model)
        if model.stage == "whole":
            self.encoder = None if model.encoder is None else Path(model.encoder).expanduser()
            self.is_frozen = model.freeze_encoder
        self.path, self.control, self.rule = data.path, data.control, SplitRule.of(data, context)
        self._data = data
        layers.check_kernel(context.attention, context.device)
        self._factors: Mapping[str, float] = dict.fromkeys(TERMS, 1.0)
        self.dataset: ResponseSplits  # after setup
        self.statistics: Statistics  # after setup or setup_without_data, like the terms
        self.terms: tuple[str, ...]
        self._trained: TrainedOnResponses  # after setup_without_data
        self.loaded: str | None = None

    def _read_loss(self, model: Model) -> None:
        loss, starts = model.loss, model.curriculum
        self.regression, self.smoothing = loss.regression, loss.label_smoothing
        self.weights = {term: getattr(loss, "class_" if term == "class" else term) for term in TERMS}
        self.curriculum = TermRamps(
            {**dict.fromkeys(PEAK, starts.peak), "class": starts.class_, "threshold": starts.threshold},
            starts.ramp,
        )

    def setup(self) -> None:
        """Read the responses, split them by patient and fit the statistics.

        Split and statistics are saved in the run folder. Without any class label, the goal is the
        reconstruction. Reads and writes the disk: rank 0 first, then the others. Raises DataError.
        """
        responses = self._read()
        rule, folder = self.rule, self.context.folder
        groups, noun = self._groups(responses)
        splits = split_groups(groups, rule, noun)
        if folder is not None:
            save_split(splits, folder, self.context.reset_data, rule)
        self.statistics = load_or_fit(responses, members(groups, splits["train"]), folder)
        self.dataset = ResponseSplits(responses, groups, splits, self.statistics, self.control, rule.seed)
        self.terms, origin = self.dataset.terms, responses.origin
        model_facts.save(TrainedOnResponses(self.terms, origin.species, origin.window_ms), folder)
        self.goal = BY_CLASS if "class" in self.terms else Goal("val_signal_mse", "min")
        self._sums = TermSums(self.regression, self.smoothing, self.statistics.class_weight)

    def setup_without_data(self) -> None:
        self._trained = model_facts.load(self.context.folder, TrainedOnResponses)
        assert self.context.folder is not None, "TrainedOn was loaded from it"
        self.statistics = responses.load(self.context.folder)
        self.terms = self._trained.terms
        self.encoder = None  # its weights are among the trained ones

    def continue_from(self, first: AbrTask) -> None:
        """See models/base.py: ContinualTask. Terms without a label in `first` are not trained."""
        self.terms, self.goal, self._sums = first.terms, first.goal, first._sums

    def _read(self) -> Responses:
        if not self.path.startswith("embedded:"):
            return read_responses(self.path, self._data)
        if self.path in PATIENTS:
            return read_patients(self.path, self._data.shares)
        raise unknown_embedded(self.path, PATIENTS)

    def _groups(self, responses: Responses) -> tuple[NDArray[np.str_], str]:
        """The group of each response, which stays in one split, and the plural of a group."""
        count = len(set(responses.patient))
        split_by = "patient" if self.path in PATIENTS else self._data.split
        if split_by == "level" and count >= len(SPLITS):
            raise DataError(
                f"data.split=level would put {count} patients or files into more than one split",
                where="data.split",
                allowed="level only with one or two recordings",
                fix="--set data.split=patient",
            )
        by_level = count < len(SPLITS) and split_by != "patient"
        return (responses.levels, "levels") if by_level else (responses.patient, "patients or files")

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator.

        `model.encoder` provides the weights of the encoder. Raises DataError.
        """
        model = Network(self.size, self.statistics, self.terms, self.context.attention)
        if self.encoder is not None:
            path, parts = self.encoder, tuple(f"{name}." for name in ENCODER)
            self.loaded = initial_weights.load("model.encoder", model, path, _ENCODER, parts)
        if self.is_frozen:
            model.freeze(*model.encoder_parts)
        if self.stage == "encoder":
            model.train_only(*model.encoder_parts)
        return model

    def data(self, split: SplitName) -> ResponseSplit:
        return self.dataset.samples[split]

    collate = staticmethod(dataset.collate)

    def num_units(self, batch: Batch) -> NumUnits:
        """By term, the known labels of `batch`, where signal counts samples."""
        return units(batch, self.terms)

    def set_progress(self, epoch: float, epochs: float) -> None:
        self._factors = self.curriculum.factors(TERMS, epoch, epochs)

    def loss(self, model: Module, batch: Batch) -> Loss:
        """By term, the sum over its units times its weight and its curriculum factor."""
        sums = self._sums(model(batch["signal"], batch["static"]), batch)
        factors = {term: self.weights[term] * self._factors[term] for term in sums}
        return Loss({term: factors[term] * total for term, total in sums.items()}, {})

    def metric(self) -> ResponseMetric:
        return ResponseMetric(self._sums, {term: self.weights[term] for term in self.terms})

    def blocks(self, model: Module) -> list[Module]:
        assert isinstance(model, Network)
        return model.blocks()

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        return {"encoder": [model.get_submodule(name) for name in ENCODER]}

    def preview(self, model: Module) -> str | None:
        """None: the family has no text preview."""
        return None

    def pictures(self) -> Sequence[Picture]:
        return showing.level_series(self.dataset.samples["train"])

    def predictions(self, model: Module) -> Predictions:
        return showing.build_predictions(model, self.data("val"), self.context.device)

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        """See showing.predict. All responses are read first. Raises DataError."""
        with input_errors():
            responses = read_responses(str(path), self._data, has_labels=False)
            used = [file for file in files(path) if of_file(file)]
        self._trained.check(responses.origin, path)
        is_encoder = self.stage == "encoder"
        yield from showing.predict(
            model, responses, self.statistics, self.context.device, is_encoder=is_encoder
        )
        yield from passed_over(path, [*used, *filter(None, map(bids.events_path, used))])

    def onnx_model(self, model: Module) -> tuple[Module, Mapping[str, Tensor]]:
        """From signals in µV and facts to the outputs; of an encoder, to its features."""
        assert isinstance(model, Network)
        tensors = self.statistics.tensors()
        signal = tensors["signal_rms"] * torch.randn(8, 1, POINTS)
        static = tensors["static_mean"] + tensors["static_scale"] * torch.randn(8, STATIC)
        return UnscaledNetwork(model, self.stage == "encoder"), {"signal": signal, "static": static}

    flops_per_sample = staticmethod(flops_of)

    def facts(self) -> Mapping[str, Any]:
        facts = {"source": self.path, **self.dataset.facts()}
        if self.loaded is not None:
            facts["encoder"] = self.loaded
        if self.context.attention == "flash":
            facts["flash_attention"] = (
                "all attentions but those with relative positions, which flash kernels do not take"
            )
        return facts
