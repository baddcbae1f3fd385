"""The contract between the training loop and what is learnt, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
    from torch.nn import Module

Batch = Mapping[str, Any]
NumUnits = int | Mapping[str, int]
"""Units; or units by term, where a loss is a sum of means over units of different kinds."""
SplitName = Literal["train", "val", "test"]


class DataError(Exception):
    """The data or model settings cannot be used: message, where, allowed, did you mean, fix."""

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        allowed: str = "",
        did_you_mean: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(message)
        self.message, self.where, self.allowed = message, where, allowed
        self.did_you_mean, self.fix = did_you_mean, fix

    def __str__(self) -> str:
        fields = {
            "where": self.where,
            "allowed": self.allowed,
            "did you mean": self.did_you_mean,
            "fix": self.fix,
        }
        lines = (f"  {label:<12}  {text}" for label, text in fields.items() if text)
        return "\n".join([self.message, *lines])


class Draws(Protocol):
    """Randomness of one sample: the same for the same seed, epoch and index, in any worker."""

    def rng(self) -> np.random.Generator:
        """A generator that starts anew at each call."""


@dataclass(frozen=True)
class Goal:
    """The metric that picks the best checkpoint, and which way is better."""

    metric: str
    direction: Literal["min", "max"]


@dataclass(frozen=True)
class Loss:
    """A loss summed over its units, and the parts that are logged with it (also sums)."""

    sum: Tensor | Mapping[str, Tensor]
    """Or one sum a term, in the names of `Task.weight`: the loss is then the sum of their means."""
    parts: Mapping[str, Tensor]


@dataclass(frozen=True)
class Context:
    """What a task is told about the run it serves."""

    seed: int
    eval_share: float
    folder: Path | None
    """The run folder: a tokenizer or a split may be kept here; None: keep nothing."""
    device: torch.device
    attention: str = "auto"
    reset_data: bool = False
    """The data may be other than what the run folder keeps of it, which is then replaced."""
    earlier_splits: Mapping[str, SplitName] | None = None
    """Of data that joins a run which learnt before: the side that groups were on until now, where
    they stay; None: this is the data that a run begins with."""


class Split(Protocol):
    """Samples by position; the same position gives the same sample but for what `draws` decides."""

    def __len__(self) -> int: ...

    def sample(self, index: int, draws: Draws) -> Any: ...


class Metric(Protocol):
    """Counts over a split that add up exactly over ranks."""

    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds to the counts: a float64 vector, always of the same length."""

    def result(self, counts: Tensor) -> dict[str, float]:
        """The metrics of the summed counts, by name."""


class Task(Protocol):
    """One kind of learning: data, model, loss and what is measured. Knows no engine."""

    goal: Goal
    units: str
    """What the loss sums over: "tokens", "pixels", "samples"."""
    channels_last: bool
    """Whether the model is laid out as [batch, height, width, channel] in memory: convolutions."""

    def setup(self) -> None:
        """Read the data and fit what is fitted on it; rank 0 first, then the others.

        Raises DataError.
        """

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator."""

    def data(self, split: SplitName) -> Split:
        """The samples of a split."""

    def collate(self, samples: Sequence[Any]) -> Batch:
        """One batch from samples; never empty."""

    def num_units(self, batch: Batch) -> NumUnits:
        """How many units `batch` holds; known before the forward pass, may be 0.

        By term always the same names in one order; the first one counts the run's units.
        """

    def loss(self, model: Module, batch: Batch) -> Loss:
        """The loss summed over the units of `batch`; 0 with gradients where it has none."""

    def metric(self) -> Metric:
        """A fresh way to measure a split."""

    def blocks(self, model: Module) -> list[Module]:
        """The layers in order: units of sharding and of activation checkpointing."""

    def preview(self, model: Module) -> str | None:
        """A sample of what the model gives now, for a person to read. Collective under sharding."""

    def flops_per_sample(self, model: Module) -> float | None:
        """Floating point operations of forward and backward for one sample; None: not known."""

    def facts(self) -> Mapping[str, Any]:
        """What the person should know of the data: counts, splits, what was left out.

        `control`, where the data is a noise control: for each metric that must be at chance
        {"min", "max", "chance"}, each of them where it is known.
        """


@runtime_checkable
class TracksProgress(Protocol):
    """What a task has beside the rest of Task, whose loss changes as the run goes on."""

    def set_progress(self, epoch: float, epochs: float) -> None:
        """The next step begins after `epoch` of `epochs` passes over the data."""


@runtime_checkable
class ContinualTask(Protocol):
    """What a task has beside the rest of Task, whose data may join what a run learnt before."""

    def continue_from(self, first: Any) -> None:
        """After setup: learn and judge as `first` does, the task that the model was built by.

        Raises DataError where the data is of another kind than that of `first`.
        """


class EncoderInputs(Protocol):
    """What a frozen encoder is given over one split, each input once."""

    made_from: Mapping[str, Any]
    """What they depend on, as JSON: files with size and time, preprocessing, seed."""

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The inputs of these numbers, put together. Raises DataError."""


class CachedFeatures(Protocol):
    """What the encoder made of the inputs of a split; can be sent to other processes."""

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """A row of each tensor that `HasFrozenEncoder.encode` gives. Touches disk."""


@runtime_checkable
class HasFrozenEncoder(Protocol):
    """What a task has beside the rest of Task, whose model may have a frozen encoder.

    What that makes of an input is always the same, and need be computed once only.
    """

    def frozen_encoder(self, model: Module) -> str | None:
        """The name within `model` of the encoder; None: it learns."""

    def varying_inputs(self) -> str | None:
        """What makes an input of the encoder another one in each pass, for a person to read."""

    def encoder_inputs(self, split: SplitName) -> EncoderInputs:
        """What the encoder is given over a split, in training and in evaluation."""

    def encode(self, model: Module, batch: Batch) -> Mapping[str, Tensor]:
        """What it makes of a batch of inputs: by name, a row an input, all of one shape.

        Collective where the model is sharded.
        """

    def use_features(self, encodings: Mapping[SplitName, CachedFeatures]) -> None:
        """From now on give samples with what was computed, in place of what the encoder is given.

        The numbers are those of `encoder_inputs`.
        """


@dataclass(frozen=True)
class Picture:
    """A picture of the data, for a person to look at."""

    name: str
    """What its file is called, without a suffix."""
    caption: str
    png: bytes


@runtime_checkable
class Pictured(Protocol):
    """What a task has beside the rest of Task, whose data can be looked at."""

    def pictures(self) -> Sequence[Picture]:
        """One or a few samples of the training data with what is to be learnt of them."""


@dataclass(frozen=True)
class Predictions:
    """What a model makes of a few samples, for a person to look at."""

    columns: tuple[str, ...]
    """Of the table: what is given, what is wanted, what the model gives."""
    rows: Sequence[Sequence[str | float]]
    pictures: Sequence[Picture] = ()
    """One name means one sample, the same in all evaluations."""


@runtime_checkable
class Predicts(Protocol):
    """What a task has beside the rest of Task, whose predictions can be looked at."""

    def predictions(self, model: Module) -> Predictions:
        """What `model` makes of a few validation samples, always the same ones.

        `model` is in evaluation mode, and no gradients are kept. Collective where it is sharded.
        """


@runtime_checkable
class HuggingFace(Protocol):
    """What a task has beside the rest of Task, whose model transformers can load, too."""

    def write_hugging_face(self, folder: Path) -> None:
        """Write into `folder` what transformers needs beside the weights. Touches disk.

        Configuration and tokenizer; no data is read for it. Raises DataError.
        """

    def hugging_face_name(self, name: str) -> str:
        """What transformers calls the parameter or stored buffer `name`."""
