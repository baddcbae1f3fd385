"""What hangs on the loop: it is told what happened, and asks; ranks agree; the loop acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from models.base import Predictions

Status = Literal["completed", "stopped", "failed"]


class Action(IntFlag):
    """What a hook wants of all ranks; joined by a bitwise or over hooks and ranks."""

    NOTHING = 0
    EVALUATE = 1
    SAVE = 2
    STOP = 4
    """End the run in good order: its aim is reached."""
    SIGNAL = 8
    """Save and end: a signal asked for it; run me again (exit 75)."""
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
class TrainPlan:
    """The solved numbers of a run; the same on every rank."""

    total_steps: int
    steps_per_epoch: int
    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int
    units: str
    first_step: int = 0
    """Steps taken before this process began."""
    eval_every: int | None = None
    """Steps from one evaluation to the next; None: one at the end only."""
    save_every: int | None = None
    """Steps from one periodic save to the next; None: there are none."""
    flops_per_sample: float | None = None
    """Of forward and backward, as the task counts them; None: not known."""
    data_start: int = 0
    """The step at which the order of the data began: 0, or that of the last `--reset data`."""
    schedule_start: int = 0
    """The step at which the schedule began: 0, or that of the last `--reset schedule`."""
    samples_before: int = 0
    """Samples seen when the order of the data began."""
    until: int | None = None
    """Go no further than this step, whatever is left: a replay ends here; None: to the end."""
    experience: int = 0
    """The number of the experience that is learnt; 0: the data that the run began with."""
    left_out: int = 0
    """Samples of each epoch that fill no global batch any more; other ones in each."""
    eval_each_epoch: bool = False
    """Evaluate at the end of each epoch, whatever `eval_every` is."""
    keep_every: int | None = None
    """Steps from one periodic checkpoint that stays for good to the next; None: none does."""
    stop_after: int | None = None
    """The run ends with this step, in good order, whatever its schedule goes on to."""

    @property
    def end_step(self) -> int:
        """The step that the run ends with: all are taken, or as many as it is to take."""
        return (
            self.total_steps if self.stop_after is None else min(self.total_steps, self.stop_after)
        )

    @property
    def last_step(self) -> int:
        """The step that this process ends with."""
        return self.end_step if self.until is None else min(self.end_step, self.until)

    def epoch(self, step: int) -> float:
        """Passes over the data after `step` updates."""
        return (step - self.data_start) / self.steps_per_epoch

    def samples(self, step: int) -> int:
        """Samples seen after `step` updates."""
        return self.samples_before + (step - self.data_start) * self.global_batch

    def facts(self, step: int) -> dict[str, Any]:
        """Where a run stands after `step` updates, as plain numbers; see training/checkpoint/resume_point.py."""
        return {
            "step": step,
            "epoch": self.epoch(step),
            "samples": self.samples(step),
            "position": self.samples(step) - self.samples_before,
            "starts": {
                "data": self.data_start,
                "schedule": self.schedule_start,
                "samples_before": self.samples_before,
            },
        }


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
