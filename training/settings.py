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
            description="Samples of one step over all ranks; or give micro_batch and accumulation.",
        ),
    ] = None
    micro_batch: Annotated[
        Samples | None,
        Field(ge=1, description="Samples that one rank puts through one forward and backward."),
    ] = None
    accumulation: Annotated[
        int | None,
        Field(ge=1, description="Micro-batches a step on one process; with more, fewer each."),
    ] = None
    epochs: Annotated[float, Field(gt=0, description="Passes over the training data.")] = 1.0
    max_steps: Annotated[
        Steps | None, Field(ge=1, description="Stop after this many steps, whatever `epochs` says.")
    ] = None
    seed: Annotated[
        int, Field(ge=0, lt=2**63, description="The seed that every purpose derives its own from.")
    ] = 0
    deterministic: Annotated[
        bool, Field(description="Only deterministic algorithms; slower on a GPU.")
    ] = False
    debug: Annotated[
        bool, Field(description="Anomaly detection and the shapes of the first batch.")
    ] = False
    on_nonfinite: Annotated[
        str,
        Field(
            pattern=r"^(stop|skip [1-9][0-9]*)$",
            json_schema_extra={"allowed": "stop, or such as 'skip 3'"},
            description="What a loss that is not finite leads to: stop, or `skip N` in a row.",
        ),
    ] = "stop"
    ema: Annotated[
        float | None,
        Field(
            gt=0,
            lt=1,
            description="Decay of the average of the weights that evaluation uses; null: off.",
        ),
    ] = None
    preview: Annotated[
        bool, Field(description="Show a sample of the model's output before and after training.")
    ] = True
    timing: Annotated[
        bool, Field(description="Wait for each step to end, and tell how long steps take.")
    ] = False


class Optim(BaseModel, extra="forbid", frozen=True):
    """The optimizer."""

    name: Annotated[
        Literal["adamw", "adafactor", "sgd"],
        Field(
            description="The optimizer's name. adafactor keeps a number for each row and column of "
            "a weight where adamw keeps two for each element."
        ),
    ] = "adamw"
    lr: Annotated[float, Field(gt=0, description="The peak learning rate.")] = 1e-3
    betas: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]],
        Field(
            min_length=2,
            max_length=2,
            description="AdamW's decay rates of the first and second moment.",
            json_schema_extra=_ADAMW | {"allowed": "two numbers, each at least 0 and below 1"},
        ),
    ] = [0.9, 0.95]
    eps: Annotated[
        float,
        Field(gt=0, description="AdamW's term against division by zero.", json_schema_extra=_ADAMW),
    ] = 1e-8
    momentum: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Momentum of sgd.",
            json_schema_extra={"only_if": {"optim.name": ["sgd"]}},
        ),
    ] = 0.9
    weight_decay: Annotated[
        float, Field(ge=0, description="Decay of weights with two or more axes.")
    ] = 0.01
    clip_norm: Annotated[
        float | None,
        Field(gt=0, description="Gradients are scaled down to this norm; null: never."),
    ] = 1.0


class Schedule(BaseModel, extra="forbid", frozen=True):
    """How the learning rate moves."""

    name: Annotated[
        Literal["constant", "linear", "cosine", "cosine-restarts", "one-cycle"],
        Field(description="The curve after warm-up."),
    ] = "cosine"
    warmup: Annotated[
        Duration,
        Field(description="How long the learning rate rises to its peak."),
    ] = 0
    final: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="The learning rate at the end, as a share of the peak.",
            json_schema_extra={"unless": {"schedule.name": ["constant"]}},
        ),
    ] = 0.0
    cycle: Annotated[
        Cadence,
        Field(
            description="Length of the first cycle of cosine-restarts.",
            json_schema_extra=_RESTARTS,
        ),
    ] = "10 epochs"
    t_mult: Annotated[
        float,
        Field(
            ge=1,
            description="Each cycle of cosine-restarts is so many times as long as the last.",
            json_schema_extra=_RESTARTS,
        ),
    ] = 2.0
    warmup_cap: Annotated[
        Duration | None,
        Field(description="A longer warm-up is cut to this, and a warning says so; null: never."),
    ] = None


class Eval(BaseModel, extra="forbid", frozen=True):
    """When and on what the model is judged."""

    every: Annotated[
        Cadence | None,
        Field(description="How often to evaluate; null: at the end only."),
    ] = "1 epoch"
    each_epoch: Annotated[bool, Field(description="Evaluate at the end of each epoch, too.")] = (
        False
    )
    last: Annotated[bool, Field(description="Evaluate when the run ends.")] = True
    share: Annotated[
        float, Field(gt=0, lt=1, description="Share of the data's groups held out for validation.")
    ] = 0.1
    metric: Annotated[
        str | None,
        Field(
            description="The metric that picks the best checkpoint, with which way is better: "
            "'accuracy max'. Default: the family's goal."
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
            description="The least change of the metric that counts as an improvement.",
            json_schema_extra={"unless": {"stop.patience": [None]}},
        ),
    ] = 0.0
    at: Annotated[
        str | None,
        Field(
            pattern=TARGET_PATTERN,
            json_schema_extra={"allowed": TARGET_FORMS},
            description="End the run at the first evaluation that reaches this: "
            "'val_loss <= 1.9'; null: never.",
        ),
    ] = None
    after: Annotated[
        Cadence | None,
        Field(
            description="End the run after so much of it, with the schedule of the whole; "
            "null: go to its end."
        ),
    ] = None


class Log(BaseModel, extra="forbid", frozen=True):
    """What is written down."""

    every: Annotated[
        Steps, Field(ge=1, description="Steps between two training lines of metrics.jsonl.")
    ] = 10
    stragglers: Annotated[
        float | None,
        Field(
            gt=1,
            description="A rank that computes or waits for its data so many times as long as the "
            "others, and keeps doing so, is named with its host; null: nobody looks.",
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
