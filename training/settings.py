"""The settings that training reads, and dotted keys such as optim.lr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field

from training.checkpoint.settings import Save
from training.data.settings import Loader
from training.duration import Cadence, Duration
from training.evaluation.early_stopping import TARGET_FORMS, TARGET_PATTERN
from training.trackers.settings import Tracking

# What stands in json_schema_extra is read by launcher/config/schema.py: `legal` (forms, for
# messages), `unit`, and `only_if` / `unless` (settings that decide whether this one counts).
Samples = Annotated[int, Field(json_schema_extra={"unit": "samples"})]
Steps = Annotated[int, Field(json_schema_extra={"unit": "steps"})]
_RESTARTS = {"only_if": {"schedule.name": ["cosine-restarts"]}}
_ADAMW = {"only_if": {"optim.name": ["adamw"]}}


class Train(BaseModel, extra="forbid", frozen=True):
    """How much is trained, in what portions."""

    global_batch: Annotated[
        Samples | None,
        Field(
            ge=1,
            description="Samples per step over all ranks; or set micro_batch and accumulation.",
        ),
    ] = None
    micro_batch: Annotated[
        Samples | None,
        Field(ge=1, description="Samples per rank and forward and backward pass."),
    ] = None
    accumulation: Annotated[
        int | None,
        Field(
            ge=1,
            description="Micro-batches per step with one process; more processes need fewer each.",
        ),
    ] = None
    epochs: Annotated[float, Field(gt=0, description="Epochs: passes over the training data.")] = (
        1.0
    )
    max_steps: Annotated[
        Steps | None, Field(ge=1, description="Stop after N steps; overrides `epochs`.")
    ] = None
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Random seed.")] = 0
    deterministic: Annotated[
        bool, Field(description="Use deterministic algorithms only; slower on a GPU.")
    ] = False
    debug: Annotated[
        bool,
        Field(description="Detect anomalies in autograd and print the shapes of the first batch."),
    ] = False
    on_nonfinite: Annotated[
        str,
        Field(
            pattern=r"^(stop|skip [1-9][0-9]*)$",
            json_schema_extra={"allowed": "stop, or such as 'skip 3'"},
            description="Action on a non-finite loss: stop, or `skip N` (at most N steps "
            "in a row).",
        ),
    ] = "stop"
    ema: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Decay of the EMA of the weights, which evaluation uses; null: off.",
        ),
    ] = None
    preview: Annotated[
        bool, Field(description="Show a sample output of the model before and after training.")
    ] = True
    timing: Annotated[
        bool, Field(description="Synchronize after each step and report step times.")
    ] = False


class Optim(BaseModel, extra="forbid", frozen=True):
    """The optimizer."""

    name: Annotated[
        Literal["adamw", "adafactor", "sgd"],
        Field(
            description=(
                "Optimizer. adafactor stores one value per row and column of "
                "a weight; adamw two per element."
            )
        ),
    ] = "adamw"
    lr: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    betas: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]],
        Field(
            min_length=2,
            max_length=2,
            description="AdamW: decay rates of the first and second moments.",
            json_schema_extra=_ADAMW | {"allowed": "two numbers, each at least 0 and below 1"},
        ),
    ] = [0.9, 0.95]
    eps: Annotated[
        float,
        Field(
            gt=0,
            description="AdamW: term that prevents division by zero.",
            json_schema_extra=_ADAMW,
        ),
    ] = 1e-8
    momentum: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="SGD: momentum.",
            json_schema_extra={"only_if": {"optim.name": ["sgd"]}},
        ),
    ] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, description="Weight decay of parameters with two or more dimensions.")
    ] = 0.01
    clip_norm: Annotated[
        float | None,
        Field(gt=0, description="Clip gradients to this norm; null: never."),
    ] = 1.0


class Schedule(BaseModel, extra="forbid", frozen=True):
    """How the learning rate moves."""

    name: Annotated[
        Literal["constant", "linear", "cosine", "cosine-restarts", "one-cycle"],
        Field(description="Learning-rate schedule after warm-up."),
    ] = "cosine"
    warmup: Annotated[
        Duration,
        Field(description="Length of the learning-rate warm-up."),
    ] = 0
    final: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Final learning rate, as a share of the peak.",
            json_schema_extra={"unless": {"schedule.name": ["constant"]}},
        ),
    ] = 0.0
    cycle: Annotated[
        Cadence,
        Field(
            description="cosine-restarts: length of the first cycle.",
            json_schema_extra=_RESTARTS,
        ),
    ] = "10 epochs"
    t_mult: Annotated[
        float,
        Field(
            ge=1,
            description="cosine-restarts: length of a cycle relative to the cycle before.",
            json_schema_extra=_RESTARTS,
        ),
    ] = 2.0
    warmup_cap: Annotated[
        Duration | None,
        Field(description="Shorten a longer warm-up to this, with a warning; null: never."),
    ] = None


class Eval(BaseModel, extra="forbid", frozen=True):
    """When and on what the model is judged."""

    every: Annotated[
        Cadence | None,
        Field(description="Interval between evaluations; null: at the end only."),
    ] = "1 epoch"
    each_epoch: Annotated[bool, Field(description="Evaluate also at the end of each epoch.")] = (
        False
    )
    last: Annotated[bool, Field(description="Evaluate when the run ends.")] = True
    share: Annotated[
        float,
        Field(gt=0, lt=1, description="Share of the data's groups to hold out for validation."),
    ] = 0.1
    metric: Annotated[
        str | None,
        Field(
            description=(
                "Metric of the best checkpoint and its direction: 'accuracy "
                "max'. Default: the goal of the model family."
            )
        ),
    ] = None


class Stop(BaseModel, extra="forbid", frozen=True):
    """When to stop early."""

    patience: Annotated[
        int | None,
        Field(
            ge=1, description="Evaluations without improvement before the run stops; null: never."
        ),
    ] = None
    min_delta: Annotated[
        float,
        Field(
            ge=0,
            description="Minimum change of the metric that counts as an improvement.",
            json_schema_extra={"unless": {"stop.patience": [None]}},
        ),
    ] = 0.0
    at: Annotated[
        str | None,
        Field(
            pattern=TARGET_PATTERN,
            json_schema_extra={"allowed": TARGET_FORMS},
            description=(
                "Stop at the first evaluation that reaches this: 'val_loss <= 1.9'; null: never."
            ),
        ),
    ] = None
    after: Annotated[
        Cadence | None,
        Field(
            description=(
                "Stop early after this long, with the schedule of the full "
                "run; null: run to the end."
            )
        ),
    ] = None


class Log(BaseModel, extra="forbid", frozen=True):
    """What is written down."""

    every: Annotated[
        Steps, Field(ge=1, description="Steps between two training lines in metrics.jsonl.")
    ] = 10
    stragglers: Annotated[
        float | None,
        Field(
            gt=1,
            description=(
                "Report a rank that is persistently this many times slower "
                "than the others; null: never."
            ),
        ),
    ] = 1.5


class Settings(Protocol):
    """The settings of a run as far as training reads them."""

    @property
    def train(self) -> Train: ...
    @property
    def optim(self) -> Optim: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def loader(self) -> Loader: ...
    @property
    def eval(self) -> Eval: ...
    @property
    def stop(self) -> Stop: ...
    @property
    def save(self) -> Save: ...
    @property
    def log(self) -> Log: ...
    @property
    def track(self) -> Sequence[str]: ...
    @property
    def tracking(self) -> Tracking: ...
    @property
    def precision(self) -> str: ...


class SettingError(ValueError):
    """A setting does not fit what it is used on; the text says what is legal."""

    def __init__(self, key: str, value: object, wrong: str, allowed: str, write: str | None = None):
        self.key, self.value, self.wrong, self.allowed, self.write = (
            key,
            value,
            wrong,
            allowed,
            write,
        )
        fix = f"; write  {write}" if write else ""
        super().__init__(f"{key} {value!r} {wrong}; legal: {allowed}{fix}")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a tree."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = key.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
