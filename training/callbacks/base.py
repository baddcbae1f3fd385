"""The callback contract: what callbacks see, and the actions they request of all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from models.base import Predictions
    from training.train_plan import TrainPlan


Status = Literal["completed", "stopped", "failed"]


class Action(IntFlag):
    """What a hook wants of all ranks; joined by a bitwise or over hooks and ranks."""

    NOTHING = 0
    EVALUATE = 1
    SAVE = 2
    STOP = 4
    """End the run in good order: its aim is reached."""
    SIGNAL = 8
    """Save and end: a signal asked for it; run again (exit 75)."""
    INTERRUPT = 16
    """Save and end: Ctrl-C (exit 130)."""
    RELIEF = 32
    """Collect garbage and empty caches on every rank."""
    PRESSURE = 64
    """Save and end: a limit of the machine is still exceeded (exit 75)."""
    FEWER_WORKERS = 128
    """Prepare batches with half the workers, on every rank."""
    SMALLER_BATCH = 256
    """Halve the micro-batch of every rank; the global batch stays."""


RUNGS = Action.RELIEF | Action.FEWER_WORKERS | Action.SMALLER_BATCH
"""What is done so that a run need not end at a limit of its machine; see training/machine."""
ENDS = Action.STOP | Action.SIGNAL | Action.INTERRUPT | Action.PRESSURE


@dataclass(frozen=True)
class Step:
    """One optimizer update; tensors stay on the device until somebody logs them."""

    step: int
    """Updates taken, this one counted: the first is 1."""
    loss: Tensor
    """This rank's sum over `units`, times the world size: its mean over ranks is the loss."""
    parts: Mapping[str, Tensor]
    """This rank's sums."""
    units: int
    """Of the whole global batch."""
    norm: Tensor
    lr: float
    skipped: bool
    loss_scale: float | None
    data_s: float
    """Seconds this rank waited for its batches."""


@dataclass(frozen=True)
class StepMetrics:
    """A logged step in plain numbers, agreed over ranks: for metrics.jsonl and the console."""

    step: int
    epoch: float
    samples: int
    units: int
    loss: float
    parts: Mapping[str, float]
    grad_norm: float
    lr: float
    skipped: int
    """Skipped updates since the last logged step."""
    loss_scale: float | None
    step_time_s: float
    """Mean over the steps since the last logged one; evaluation and saving left out."""
    data_time_s: float
    samples_per_s: float
    units_per_s: float
    mfu: float | None
    device_memory_bytes: int | None
    host_memory_bytes: int


@dataclass(frozen=True)
class EvalResult:
    """The metrics of one whole split after `step` updates."""

    step: int
    split: str
    metrics: Mapping[str, float]
    is_best: bool
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """How a run ended; becomes result.json."""

    status: Status
    reason: str
    exit_code: int
    steps: int
    epochs: float
    wall_s: float
    best: Mapping[str, float | str | int] | None
    samples_per_s: float | None
    peak_memory_bytes: Mapping[str, int | None] = field(default_factory=dict)
    experience: Mapping[str, Any] | None = None
    """Of an experience: its number, and the metrics of old and new data before and after it."""
    timing: Mapping[str, float] | None = None
    """How long single steps took, see training/timing.py; None: they were not timed."""


class Callback:
    """Sees what happens; each method may be left out. Runs on every rank, never communicates."""

    def start(self, train_plan: TrainPlan) -> None:
        """Before the first step."""

    def step(self, step: Step) -> Action:
        """After each update; must not wait for the device."""
        return Action.NOTHING

    def logged(self, line: StepMetrics) -> None:
        """After each logged step, on every rank."""

    def evaluated(self, evaluation: EvalResult) -> Action:
        """After each evaluation."""
        return Action.NOTHING

    def predicted(self, predictions: Predictions, step: int) -> None:
        """After an evaluation at `step`, where the run shows what the model makes of samples."""

    def relieved(self, left: Action) -> Action:
        """After every rank carried out what was asked of RUNGS, before the next step: measure.

        `left` are the RUNGS that can still be carried out; what is asked now is done at once.
        """
        return Action.NOTHING

    def saved(self, folder: Path, step: int) -> None:
        """After a checkpoint is whole on disk."""

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """Something worth a line in events.jsonl; "preview" has facts "when" and "text".

        "warning" has "text", for a person to see at once, and what else it is about.
        """

    def end(self, outcome: Outcome) -> None:
        """After the last step, also when the run failed."""


@dataclass(frozen=True)
class RunInfo:
    """The names and numbers of a run that do not change while it goes on."""

    model: str
    """Family and size: "language:small"."""
    mode: str
    engine: str
    device: str
    """For people: "cpu", "NVIDIA H200"."""
    precision: str
    parameters: int
    folder: Path
    data: Mapping[str, Any] = field(default_factory=dict)
    """What a task tells of its data."""
    samples: int | None = None
    """What is trained on, over all ranks: those of one epoch."""
    architecture: str | None = None
    """A digest of the names and shapes of all parameters."""
    notes: Sequence[str] = ()
    """What was filled in or adapted, a line each."""
    stage: str | None = None
    """The stage that is trained, in mode staged."""
