"""The contract between the training loop and tasks, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor
    from torch.nn import Module, Parameter
    from torch.optim import Optimizer

Batch = Mapping[str, Any]
Facts = Batch
"""What is known of data, or settings, by name."""
Tensors = Mapping[str, "Tensor"]
NumUnits = int | Mapping[str, int]
"""Units; or units by term, where a loss is a sum of means over different units."""
SplitName = Literal["train", "val", "test"]
Groups = Mapping[SplitName, Sequence[str]]
"""The groups of each split."""


class DataError(Exception):
    """The data or model settings cannot be used: message, where, allowed, did you mean, fix.

    `fix` is what to type; `hint` is advice where nothing that can be typed helps.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        allowed: str = "",
        did_you_mean: str = "",
        fix: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.allowed = allowed
        self.did_you_mean = did_you_mean
        self.fix = fix
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.message]
        for key in ("where", "allowed", "did_you_mean", "fix", "hint"):
            text = getattr(self, key)
            if text:
                lines.append(f"  {key.replace('_', ' '):<12}  {text}")
        return "\n".join(lines)


class Draws(Protocol):
    """Randomness of one sample: the same for the same seed, epoch and index, in any worker."""

    def rng(self) -> np.random.Generator:
        """A generator; each call returns one in the same initial state."""


@dataclass(frozen=True)
class Goal:
    """The metric that picks the best checkpoint, and which way is better."""

    metric: str
    direction: Literal["min", "max"]


@dataclass(frozen=True)
class Loss:
    """A loss summed over its units, and the parts that are logged with it (also sums)."""

    sum: Tensor | Tensors
    """Or a sum for each term of `Task.num_units`: the loss is then the sum of their means."""
    parts: Tensors


class OpenCheckpoint(Protocol):
    """What reads the weights of a checkpoint; only the program that writes it knows its files."""

    def __call__(self, folder: Path) -> Any:
        """`tensors`, by name, each with `shape` and `read_into(tensor)`; `check(in_one_file)`.

        `check` compares model.safetensors, or all other files, with their checksums.
        """


@dataclass(frozen=True)
class Context:
    """What a task knows about its run."""

    seed: int
    eval_share: float
    folder: Path | None
    """The run folder, where a tokenizer or a split may be saved; None: save nothing."""
    device: torch.device
    attention: str = "auto"
    reset_data: bool = False
    """The data may differ from the split saved in the run folder, which is then replaced."""
    earlier_splits: Mapping[str, SplitName] | None = None
    """The splits of groups so far, which they keep: of an experience of continual learning, of data
    that has grown, of the run that `model.start` names. None: the first data of a run."""
    open_checkpoint: OpenCheckpoint | None = None
    """None: weights are read from files of safetensors only."""
    write_file: Callable[[Path, bytes], object] = Path.write_bytes
    """Writes a file; the program passes the writer of its run folders, which is atomic."""
    estimates: bool = False
    """Sizes of the data may be estimated from a part of it: for a plan, which trains nothing."""

    def save(self, name: str, text: str) -> None:
        """Write a text file into the run folder, unless it holds the same. Touches the disk."""
        if self.folder is None:
            return
        path = self.folder / name
        content = text.encode()
        if not path.is_file() or path.read_bytes() != content:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write_file(path, content)


class Split(Protocol):
    """Samples by index; an index gives the same sample, except for what `draws` decides."""

    def __len__(self) -> int: ...

    def sample(self, index: int, draws: Draws) -> Any: ...


@runtime_checkable
class HasSources(Protocol):
    """A split of several sources, one after another."""

    source_sizes: Sequence[int]
    """Samples of each."""
    source_weights: Sequence[float] | None
    """What each has of the samples taken, in any unit; None: all samples count alike."""


class Metric(Protocol):
    """Counts over a split that add up exactly over ranks."""

    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds to the counts: a float64 vector of constant length."""

    def result(self, counts: Tensor) -> Mapping[str, float | None]:
        """The metrics of the summed counts; None: undefined, such as the AUROC of one class."""


class Task(Protocol):
    """What is trained: data, model, loss and metrics. Knows no engine."""

    goal: Goal
    units: str
    """What the loss sums over: "tokens", "pixels", "samples"."""
    channels_last: bool
    """Whether the memory layout is [batch, height, width, channel], for images of one size."""

    def setup(self) -> None:
        """Read the data and fit tokenizers; rank 0 first, then the others. Raises DataError."""

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator."""

    def data(self, split: SplitName) -> Split:
        """The samples of a split."""

    def collate(self, samples: Sequence[Any]) -> Batch:
        """One batch from samples; `samples` is never empty."""

    def num_units(self, batch: Batch) -> NumUnits:
        """How many units `batch` holds; known before the forward pass, may be 0.

        If by term: always the same names in one order; the first counts the units of the run.
        """

    def loss(self, model: Module, batch: Batch) -> Loss:
        """The loss summed over the units of `batch`; 0 with gradients where it has none."""

    def metric(self) -> Metric:
        """A new metric for one evaluation of a split."""

    def blocks(self, model: Module) -> list[Module]:
        """The layers in order: units of sharding and of activation checkpointing."""

    def preview(self, model: Module) -> str | None:
        """A sample of the current outputs as text; None: no preview. Collective under sharding."""

    def flops_per_sample(self, model: Module) -> float | None:
        """Operations of forward and backward for one sample; None: unknown."""

    def facts(self) -> Facts:
        """Facts of the data for the user: counts, splits, what was left out.

        In a noise control also `control`: for each metric that must be at chance, those of
        "min", "max" and "chance" that are known.
        """


@runtime_checkable
class CountsTokens(Protocol):
    """A task whose units, the labels, are not all that it computes."""

    def num_tokens(self, batch: Batch) -> int:
        """How many tokens of `batch` are computed, without padding."""


@runtime_checkable
class TracksProgress(Protocol):
    """A task whose loss depends on the progress of the run, such as a curriculum."""

    def set_progress(self, epoch: float, epochs: float) -> None:
        """Set the loss for the next step, which starts after `epoch` of `epochs` epochs."""


@runtime_checkable
class HasFinalMetric(Protocol):
    """A task with metrics that are too slow for evaluations during training."""

    def final_metric(self) -> Metric | None:
        """A new metric for the end of a run, beside `Task.metric`, with other names; None: none."""


@dataclass(frozen=True)
class Baseline:
    """A simple method beside the model, and what it reaches on held-out data."""

    name: str
    """Such as "a threshold on the number of events"."""
    metrics: Mapping[str, float]
    """Those of `Metric.result` that the method has; at least one."""


@runtime_checkable
class HasBaselines(Protocol):
    """A task that knows simple methods which a model must beat to be worth its training."""

    def baselines(self, train: Iterable[Batch], held_out: Iterable[Batch]) -> Sequence[Baseline]:
        """Methods fitted to batches of the training data and measured on held-out ones.

        On one process, in seconds; each is iterated at most once, and its tensors are on the CPU.
        Empty: none for this data.
        """


@runtime_checkable
class ChecksMeasures(Protocol):
    """A task that checks its loss and metrics before the first step."""

    def check_measures(self, model: Module, once: Batch, twice: Batch) -> None:
        """Measure a batch, and another with each sample two times. Raises DataError. Collective."""


@runtime_checkable
class ContinualTask(Protocol):
    """A task that continual learning can train on further experiences."""

    def continue_from(self, first: Any) -> None:
        """After setup: use loss and goal of `first`. Raises DataError for other kinds of data."""


class EncoderInputs(Protocol):
    """The inputs of a frozen encoder over one split, each once."""

    made_from: Facts
    """What they depend on, as JSON: files with their identity, preprocessing, seed."""

    def __len__(self) -> int: ...

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The batch of these inputs. Raises DataError."""


class CachedFeatures(Protocol):
    """The cached outputs of the encoder over one split; can be pickled for other processes."""

    def __getitem__(self, number: int) -> Mapping[str, np.ndarray]:
        """The row of input `number` in each tensor of `HasFrozenEncoder.encode`. Reads the disk."""


@runtime_checkable
class HasFrozenEncoder(Protocol):
    """A task whose model may have a frozen encoder, whose outputs can be cached."""

    def frozen_encoder(self, model: Module) -> str | None:
        """The name of the frozen encoder within `model`; None: the encoder is trained."""

    def varying_inputs(self) -> str | None:
        """What changes the inputs of the encoder in each epoch, as text; None: nothing."""

    def encoder_inputs(self, split: SplitName) -> EncoderInputs:
        """The inputs of the encoder over a split, in training and in evaluation."""

    def encode(self, model: Module, batch: Batch) -> Tensors:
        """The outputs for a batch: by name, one row per input, all of one shape. Collective."""

    def use_features(self, features: Mapping[SplitName, CachedFeatures]) -> None:
        """From now on, return samples with cached features, numbered as `encoder_inputs`."""


@dataclass(frozen=True)
class Picture:
    """A picture of a sample or a prediction."""

    name: str
    """The name of its file, without a suffix."""
    caption: str
    png: bytes


@runtime_checkable
class HasPictures(Protocol):
    """A task that can draw its data."""

    def pictures(self) -> Sequence[Picture]:
        """One or a few samples of the training data with their targets."""


@runtime_checkable
class HasBaseWeights(Protocol):
    """A task whose model may start from the weights of a folder, with adapters or without."""

    has_adapters: bool
    """Whether adapters are trained, and the weights of the folder are frozen."""

    def base_folder(self) -> Path | None:
        """The folder with the pretrained weights of the model; None: it has none."""

    def write_adapted(self, weights: Tensors, folder: Path, *, merged: bool) -> None:
        """Write the adapters, alone or `merged` with the frozen weights. Raises DataError."""


@dataclass(frozen=True)
class SamplePart:
    """A part of a sample as the model sees it, as text."""

    text: str
    in_loss: bool
    """Whether the model learns to generate it."""


@runtime_checkable
class HasSampleText(Protocol):
    """A task whose samples are text."""

    def sample_text(self) -> Sequence[SamplePart]:
        """The first training sample, in order."""


@dataclass(frozen=True)
class Predictions:
    """A table and pictures of the predictions for a few samples."""

    columns: tuple[str, ...]
    """Headings of the table: input, target, prediction."""
    rows: Sequence[Sequence[str | float | None]]
    """One cell for each column; None: the value is unknown."""
    pictures: Sequence[Picture] = ()
    """A name belongs to one sample, the same in all evaluations."""


@runtime_checkable
class HasOptimizer(Protocol):
    """A task with an optimizer of its own."""

    def optimizer(self, parameters: Sequence[Parameter]) -> Optimizer:
        """The optimizer of all `parameters`; its learning rates are set before each step."""


LAYERS = "layers"


@runtime_checkable
class HasParts(Protocol):
    """A task that names parts of its model other than the children of the module."""

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """The modules of each part, for `optim.groups`; children beside them are parts, too.

        A part LAYERS is a stack from input to output, for `optim.layer_decay`; embeddings below it
        are part "embedding". What two parts share belongs to the first.
        """


@runtime_checkable
class HasPredictions(Protocol):
    """A task that can show the predictions of its model."""

    def predictions(self, model: Module) -> Predictions:
        """Those of a few fixed validation samples, without gradients. Collective if sharded."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one input."""

    name: str
    """The name of its files, without a suffix: letters, digits, "-", "_" and "."."""
    text: str
    """For the terminal: the result itself, or a line about the files."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The content of each file by its suffix, such as ".png" or ".csv"."""


@runtime_checkable
class WorksWithoutData(Protocol):
    """A task whose trained model can be built from a run folder or an export, without its data."""

    saved_files: Sequence[str]
    """Names of the files and folders in the run folder that `setup_without_data` reads; some may be
    missing."""

    def setup_without_data(self) -> None:
        """Instead of `setup`: read what it saved, for `build` and predictions. Raises DataError."""


@runtime_checkable
class PredictsFiles(WorksWithoutData, Protocol):
    """A task whose trained model can be used on files without targets."""

    def predict(self, model: Module, path: Path) -> Iterator[Prediction]:
        """The predictions for each sample of a file or folder of the family. Raises DataError."""


@dataclass(frozen=True)
class Message:
    """A message of a conversation."""

    role: str
    """system, user or assistant."""
    text: str


@dataclass(frozen=True)
class Prompt:
    """What a text is generated after."""

    name: str
    """The name of its prediction, as `Prediction.name`."""
    messages: Sequence[Message]
    """The request and the messages before it; of a text that is continued, one."""


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    max_tokens: int = 256
    """At most this many."""
    temperature: float | None = None
    """Divisor of the logits; 0: always the likeliest token; None: the default of the task."""
    top_p: float = 1.0
    """Only the likeliest tokens whose probabilities add up to this share."""
    top_k: int | None = None
    """Only this many of the likeliest tokens; None: all."""
    seed: int = 0
    """The same seed gives the same text."""


@runtime_checkable
class GeneratesText(WorksWithoutData, Protocol):
    """A task whose trained model continues a text or answers requests."""

    prompt_suffixes: Collection[str]
    """Suffixes of files with prompts, such as ".txt"."""

    def answers_requests(self) -> bool:
        """Whether it was trained on conversations, so that earlier messages matter."""

    def prompts(self, path: Path) -> Sequence[Prompt]:
        """The prompts in a file. Raises DataError."""

    def dropped_tokens(self, prompt: Prompt, sampling: Sampling) -> int:
        """How many tokens of `prompt` `generate` leaves out, for the context of the model."""

    def generate(self, model: Module, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """The parts of the text after `prompt` as they are generated, up to its end."""


@runtime_checkable
class HasOnnxFormat(Protocol):
    """A task whose model ONNX can express."""

    def onnx_model(self, model: Module) -> tuple[Module, Tensors]:
        """What to export of `model`, in evaluation mode, and its inputs by name for some samples.

        The inputs are the positional arguments; their first axis is the batch. It returns a tensor,
        or tensors by name. Raises DataError.
        """


@runtime_checkable
class HasHuggingFaceFormat(Protocol):
    """A task whose model transformers can load."""

    def write_hugging_face(self, folder: Path) -> None:
        """Write configuration and tokenizer, without weights, into `folder`. Raises DataError."""

    def hugging_face_name(self, name: str) -> str:
        """The name in transformers of the parameter or persistent buffer `name`."""
