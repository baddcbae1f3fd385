"""The callback contract, and why a run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gearshift.training.storage import StorageError

if TYPE_CHECKING:
    from torch import Tensor

    from gearshift.models.base import Predictions
    from gearshift.training.train_plan import TrainPlan


Facts = Mapping[str, Any]
"""Values of JSON by name: of an event, a checkpoint, a run."""
Json = dict[str, Any]
"""As Facts, to be filled or changed."""
Numbers = Mapping[str, float]
Emit = Callable[[str, Facts], None]
"""Takes an event: kind and facts."""
Status = Literal["completed", "stopped", "failed"]
TEST = "test"
"""The split that `eval.test` evaluates at the end of a run."""


class Action(IntFlag):
    """What a callback requests of all ranks; combined by bitwise or over callbacks and ranks."""

    NOTHING = 0
    EVALUATE = 1
    SAVE = 2
    STOP = 4
    """End the run as completed (exit 0)."""
    SIGNAL = 8
    """Save and end after a signal; run again (exit 75)."""
    INTERRUPT = 16
    """Save and end after Ctrl-C (exit 130)."""
    FREE_MEMORY = 32
    """Collect garbage and empty caches on every rank."""
    LIMIT_EXCEEDED = 64
    """Save and end: a resource limit is still exceeded (exit 75)."""
    FEWER_WORKERS = 128
    """Halve the data-loader workers of every rank."""
    SMALLER_BATCH = 256
    """Halve the micro-batch of every rank; the global batch stays."""


THROTTLING = Action.FREE_MEMORY | Action.FEWER_WORKERS | Action.SMALLER_BATCH
"""The throttling steps: they let a run continue at a resource limit; see training/resources."""


@dataclass(frozen=True)
class Step:
    """One optimizer update; tensors stay on the device until they are logged."""

    step: int
    """Updates taken, including this one: the first is 1."""
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
    lrs: Numbers = field(default_factory=dict)
    """Learning rates of the parts of the model that have a factor."""
    tokens: int | None = None
    """What the global batch computes, where units are fewer; None: as many as units."""


@dataclass(frozen=True)
class StepMetrics:
    """A logged step as plain numbers, agreed over ranks: for metrics.jsonl and the console."""

    step: int
    epoch: float
    samples: int
    units: int
    """All that was computed so far, also where the loss counts fewer."""
    loss: float
    parts: Numbers
    grad_norm: float
    lr: float
    skipped: int
    """Skipped updates since the last logged step."""
    loss_scale: float | None
    step_time_s: float
    """Mean over the steps since the last logged one, without evaluation and saving."""
    data_time_s: float
    samples_per_s: float
    units_per_s: float
    mfu: float | None
    device_memory_bytes: int | None
    host_memory_bytes: int
    forward_time_s: float | None
    """Mean over the steps since the last logged one; None: unknown."""
    backward_time_s: float | None
    """With recomputed activations, and with the averaging of gradients over ranks."""
    optimizer_time_s: float | None
    """Gradient norm, clipping and update."""
    lrs: Numbers
    """As `Step.lrs`."""
    labelled: int | None
    """Those of `units` that the loss counts; None: all."""
    labelled_per_s: float | None


@dataclass(frozen=True)
class EvalResult:
    """The metrics of one split after `step` updates."""

    step: int
    split: str
    metrics: Numbers
    is_best: bool
    seconds: float
    final_s: float = 0.0
    """Seconds of it for the metrics of the end of a run."""
    samples: int | None = None
    """Samples that were evaluated; None: a run of another version."""
    split_samples: int | None = None
    """Samples of the split."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended; the content of result.json."""

    status: Status
    reason: str
    exit_code: int
    steps: int
    epochs: float
    wall_s: float
    best: Facts | None
    """Metric, value, step; where a simple method has the metric, name and value of the `baseline`
    that comes nearest."""
    samples_per_s: float | None
    peak_memory_bytes: Mapping[str, int | None] = field(default_factory=dict)
    experience: Facts | None = None
    """Number of the experience, and the metrics of old and new data before and after it."""
    timing: Numbers | None = None
    """As training.step_metrics.timing; None: `train.timing` is off."""
    fault: str | None = None
    """The name of the fault that ended the run; None: another one, or none."""
    test: Facts | None = None
    """Metrics of the test split, and the step of the weights; None: `eval.test` is off."""
    baselines: Sequence[Facts] = ()
    """Name and metrics of each simple method on the validation split, the best first."""
    time_split: Numbers | None = None
    """Seconds of the run by part, as StepTimer.summary; None: not measured."""


@dataclass(frozen=True)
class RunInfo:
    """The names and numbers of a run that never change, for reports and result.json."""

    model: str
    """Family and size: "language:small"."""
    mode: str
    engine: str
    device: str
    """Readable: "cpu", "NVIDIA H200"."""
    precision: str
    parameters: int
    folder: Path
    trainable_parameters: int
    """Of all parameters, those that are not frozen."""
    data: Facts
    """`Task.facts()`."""
    samples: int
    """Training samples of one epoch, over all ranks."""
    architecture: str
    """A digest of the names and shapes of all parameters."""
    notes: Sequence[str]
    """Values that were filled in or adapted, a line each."""
    stage: str | None
    """The stage, in mode staged."""
    environment: Facts
    """The machine of rank 0, and versions."""
    evaluated: tuple[int, int]
    """Validation samples of an evaluation, and of the split."""
    loss_changes: bool
    """The task changes its loss during the run, as a curriculum does."""
    predicted_memory_bytes: Facts | None
    """Peaks by `device` and `host`, as engine auto predicted them; None: it chose nothing."""


class Callback:
    """Sees the events of a run; methods are optional. Runs on every rank, never communicates."""

    def start(self, train_plan: TrainPlan) -> None:
        """Called before the first step."""

    def step(self, step: Step) -> Action | None:
        """Called after each update; must not wait for the device."""
        return self.requested()

    def requested(self) -> Action | None:
        """The actions requested by now; asked often during an evaluation, so it must not wait."""

    def logged(self, metrics: StepMetrics) -> None:
        """Called after each logged step."""

    def evaluated(self, result: EvalResult) -> Action | None:
        """Called after each evaluation."""

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Called after an evaluation at `step` if the run shows predictions."""

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        """Called before and after training, as `when` says, with the weights of `step`."""

    def throttled(self, available: Action) -> None:
        """Called after all ranks took throttling steps; `available` are those still possible."""

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        """Called once a checkpoint is complete on disk; training waited `seconds` for it."""

    def event(self, kind: str, facts: Facts) -> None:
        """Called for each line of events.jsonl.

        A "preview" has facts "when" and "text", a "warning" has "text" and its subject, an "advice"
        "text", what was "seen", the likely "cause", and the arguments of the "fix".
        """

    def end(self, outcome: Outcome) -> None:
        """Called after the last step, also if the run failed."""


def _each(name: str) -> Callable[..., Any]:
    def call(self: CallbackList, *arguments: object) -> Action:
        return _joined(getattr(callback, name)(*arguments) for callback in self.callbacks)

    return call


class CallbackList(Callback):
    """Calls each of `callbacks` in order, and joins the actions that they request."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks = list(callbacks)

    start = _each("start")
    step = _each("step")
    requested = _each("requested")
    logged = _each("logged")
    evaluated = _each("evaluated")
    predicted = _each("predicted")
    sampled = _each("sampled")
    saved = _each("saved")
    throttled = _each("throttled")
    event = _each("event")

    def end(self, outcome: Outcome) -> None:
        """End each, also after one that fails.

        A full disk hides no earlier error of a failed run.
        """
        hidden = (StorageError,) if outcome.status == "failed" else ()
        with suppress(*hidden), ExitStack() as stack:
            for callback in reversed(self.callbacks):
                stack.callback(callback.end, outcome)


def _joined(requests: Iterable[Action | None]) -> Action:
    joined = Action.NOTHING
    for action in requests:
        if action:  # rarely; joining flags costs more than this check
            joined |= action
    return joined


DONE = 0
FAILED = 1
RUN_AGAIN = 75
INTERRUPTED = 130


class WorkerDied(RuntimeError):
    """A data-loader worker died; the message names it, how it died, and the free memory."""


@dataclass(frozen=True)
class StopReason:
    """Why a run takes no more steps."""

    status: Status
    reason: str
    exit_code: int
    fault: str | None = None
    """As Outcome.fault."""

    @property
    def is_resumable(self) -> bool:
        """Another process takes the remaining steps: the state must be saved."""
        return self.exit_code in (RUN_AGAIN, INTERRUPTED)


FINISHED = StopReason("completed", "all steps taken", DONE)
REPLAYED = StopReason("stopped", "reached the step to replay to", DONE)


_OF_ACTION = {  # The first one counts
    Action.INTERRUPT: StopReason("stopped", "interrupted by Ctrl-C", INTERRUPTED),
    Action.SIGNAL: StopReason("stopped", "stopped by a signal", RUN_AGAIN),
    Action.LIMIT_EXCEEDED: StopReason("stopped", "a resource limit is exceeded", RUN_AGAIN),
    Action.STOP: StopReason("completed", "stopped by a callback", DONE),
}


def requested(actions: Action) -> StopReason | None:
    """The stop reason in the agreed `actions`; None: the run continues."""
    return next((reason for action, reason in _OF_ACTION.items() if action in actions), None)


def completed(reason: str) -> StopReason:
    """The run ends early, and as it should."""
    return StopReason("completed", reason, DONE)


def failed(reason: str, fault: str | None = None) -> StopReason:
    """The program or the run failed; `fault` as Outcome.fault."""
    return StopReason("failed", reason, FAILED, fault)
