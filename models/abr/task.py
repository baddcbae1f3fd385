"""The task of the abr family: reconstruction, wave V, hearing loss and threshold of a response."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import mode
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from gearshift.models.abr import dataset, metric, showing
from gearshift.models.abr.config import POINTS, SIZES, STATIC, Data, Model
from gearshift.models.abr.dataset import Sample, TrainedOnResponses, load_or_fit
from gearshift.models.abr.embedded import PATIENTS, SHARES, simulate
from gearshift.models.abr.formats import of_file
from gearshift.models.abr.loss import TermRamps, TermSums, units
from gearshift.models.abr.network import ENCODER, PEAK, Network, UnscaledNetwork
from gearshift.models.abr.readers.files import read_responses
from gearshift.models.abr.responses import LABELS, Responses, Statistics
from gearshift.models.base import (
    Baseline,
    Batch,
    Context,
    DataError,
    Draws,
    Goal,
    Loss,
    NumUnits,
    Picture,
    Prediction,
    Predictions,
)
from gearshift.models.catalog import local_path
from gearshift.models.common import layers
from gearshift.models.common.data_files import files
from gearshift.models.common.data_reports import unknown_embedded
from gearshift.models.common.family import FACTS_FILE, FamilyTask, Numbers, Sums, load_facts
from gearshift.models.common.predictions import OPTION, input_errors, passed_over
from gearshift.models.common.split import SPLITS

MARGIN = 0.04
"""How far above chance macro-F1 may be in a noise control."""
REPEATS = 16
"""Of each training level per epoch, if there are one or two recordings: a dozen make no batch."""


class AbrTask(FamilyTask):
    """See models/base.py: Task. Records are responses."""

    goal = Goal("val_macro_f1", "max")
    noun = "patients or files"
    saved_files = (FACTS_FILE,)
    parts: Mapping[str, Sequence[str]] = {"encoder": ENCODER}
    records: Responses  # after setup
    trained: TrainedOnResponses  # after setup or setup_without_data, like its parts
    statistics: Statistics
    terms: tuple[str, ...]

    def __init__(
        self,
        model: Model,
        data: Data,
        context: Context,
    ) -> None:
        """Read the settings; touches no file. Raises DataError for an invalid attention kernel."""
        super().__init__(model, data, context)
        layers.check_kernel(context.attention, context.device)
        self.size = SIZES[model.size]
        self.control = data.control
        loss = model.loss
        self.regression = loss.regression
        self.smoothing = loss.label_smoothing
        self.weights = {
            "signal": loss.signal,
            "exists": loss.exists,
            "latency": loss.latency,
            "amplitude": loss.amplitude,
            "class": loss.class_,
            "threshold": loss.threshold,
        }
        curriculum = model.curriculum
        starts = {
            **dict.fromkeys(PEAK, curriculum.peak),
            "class": curriculum.class_,
            "threshold": curriculum.threshold,
        }
        self.curriculum = TermRamps(starts, curriculum.ramp)
        self._factors: Mapping[str, float] = {}

    def read(self) -> Responses:
        data = self.data_settings
        if not data.path.startswith("embedded:"):
            return read_responses(local_path(data.path), data)
        if data.path in PATIENTS:
            return simulate(PATIENTS[data.path], SHARES[data.shares])
        raise unknown_embedded(data.path, PATIENTS)

    def groups_of(self, records: Responses) -> NDArray[np.str_]:
        """The patient or file of each response; or the level, if there are one or two of them."""
        # Splits need three groups: of one or two recordings, levels must do.
        if len(set(records.patient)) >= len(SPLITS):
            return records.patient
        self.noun = "levels"
        self.repeats = REPEATS
        return np.array([f"level {level:g} dB" for level in records.static[:, 1]])

    def fit(self, train: Numbers) -> None:
        """Fit the statistics. Without any class label, the goal is the reconstruction."""
        self._set_trained(load_or_fit(self.records, train, self.context))

    def setup_without_data(self) -> None:
        self._set_trained(load_facts(self.context.folder, TrainedOnResponses))
        self.encoder = None  # the initial weights are among the trained ones

    def _set_trained(self, trained: TrainedOnResponses) -> None:
        self.trained = trained
        self.statistics = trained.statistics
        self.terms = trained.terms
        if "class" not in self.terms:
            self.goal = Goal("val_signal_mse", "min")
        self._sums = TermSums(self.regression, self.smoothing, self.statistics.class_weight)

    def continue_from(self, first: AbrTask) -> None:
        """See models/base.py: ContinualTask. Terms without a label in `first` are not trained."""
        self.terms = first.terms
        self.goal = first.goal
        self._sums = first._sums

    def sample(
        self,
        number: int,
        given: int,
        draws: Draws,
    ) -> Sample:
        """The labels of response `number` with the signal and the facts of `given`.

        In control `noise-signal`, a response keeps its own facts.
        """
        records = self.records
        facts_of = given if self.control == "noise" else number
        sample: Sample = {name: float(records.labels[name][number]) for name in LABELS}
        sample["target"] = int(records.target[number])
        sample["signal"] = dataset.scaled_signal(records.signal[given], self.statistics)
        sample["static"] = dataset.scaled_facts(records.static[facts_of], self.statistics)
        return sample

    collate = staticmethod(dataset.collate)

    def network(self) -> Network:
        return Network(
            self.size,
            self.statistics,
            self.terms,
            self.context.attention,
        )

    def num_units(self, batch: Batch) -> NumUnits:
        """By term, the known labels of `batch`, where signal counts samples."""
        return units(batch, self.terms)

    def set_progress(
        self,
        epoch: float,
        epochs: float,
    ) -> None:
        self._factors = self.curriculum.factors(epoch, epochs)

    def loss(
        self,
        model: Module,
        batch: Batch,
    ) -> Loss:
        """By term, the sum over its units times its weight and its curriculum factor."""
        outputs = model(batch["signal"], batch["static"])
        weighted = {}
        for term, total in self._sums(outputs, batch).items():
            weighted[term] = self.weights[term] * self._factors.get(term, 1.0) * total
        return Loss(weighted, {})

    def metric(self) -> Sums:
        return Sums(
            partial(metric.measure, self._sums),
            partial(metric.scores, self.weights),
        )

    def baselines(
        self,
        train: Iterable[Batch],
        held_out: Iterable[Batch],
    ) -> list[Baseline]:
        """The mean, and small forests on the facts and on the points; none without labels."""
        # Here: a run needs it once, at its end.
        from gearshift.models.abr.baselines import baselines

        return baselines(train, held_out)

    def blocks(self, model: Any) -> list[Module]:
        return [
            model.input,
            *model.encoder,
            model.bottleneck,
            *model.decoder,
            model.output,
            model.signal_head,
            model.peak_head,
            model.class_head,
            model.threshold_head,
        ]

    def example(self) -> Sequence[Tensor]:
        """Fourier transforms of the state space layers (below 1 %) are not counted."""
        return torch.zeros(1, 1, POINTS), torch.zeros(1, STATIC)

    def pictures(self) -> Sequence[Picture]:
        """The training responses of the patient with the most."""
        records = self.records
        numbers = np.unique(self.data("train").numbers)
        patient = mode(records.patient[numbers].tolist())
        of_patient = numbers[records.patient[numbers] == patient]
        image = showing.draw_responses(records, of_patient, {})
        return [Picture("responses", f"{patient}: responses by level, waves V marked", image)]

    def predictions(self, model: Module) -> Predictions:
        return showing.build_predictions(self, model)

    def predict(
        self,
        model: Module,
        path: Path,
    ) -> Iterator[Prediction]:
        """See showing.predict. All responses are read first. Raises DataError."""
        with input_errors():
            records = read_responses(
                str(path),
                self.data_settings,
                has_labels=False,
            )
            used = [file for file in files(path) if of_file(file)]
        origin = records.origin
        trained = self.trained
        if origin.window_ms != trained.window_ms:
            raise DataError(
                f"'{path}' has {origin.species} responses of {origin.window_ms:g} ms",
                where=OPTION,
                allowed=f"{trained.species} responses of {trained.window_ms:g} ms, as in training",
            )
        yield from showing.predict(self, model, records)
        yield from passed_over(path, used)

    def onnx_model(self, model: Any) -> tuple[Module, Mapping[str, Tensor]]:
        """From signals in µV and facts to the outputs."""
        inputs = {"signal": torch.randn(8, 1, POINTS), "static": torch.rand(8, STATIC)}
        return UnscaledNetwork(model), inputs

    def facts(self) -> Mapping[str, Any]:
        split = f"by {self.records.origin.group}"
        if self.noun == "levels":
            split = (
                f"by level of one or two recordings, each training level {REPEATS} times per "
                "epoch: scores do not generalize to other ears"
            )
        facts = {"source": self.data_settings.path, "split": split, **super().facts()}
        facts |= dataset.facts(self.records, self.terms, np.unique(self.data("train").numbers))
        if self.control != "real" and "class" in self.terms:
            chance = dataset.chance_macro_f1(self.records.target[self.data("val").numbers])
            bounds = {"chance": chance}
            # Without the signal alone there is no bound: age, level and rate may carry information
            # about the hearing loss.
            if self.control == "noise":
                bounds["max"] = chance + MARGIN
            facts["control"] = {"val_macro_f1": bounds}
        return facts
