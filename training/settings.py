"""The settings that training reads, and dotted keys such as optim.lr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field

from training.duration import Cadence, Duration


class Save(BaseModel, extra="forbid", frozen=True):
    """When checkpoints are saved, and which stay."""

    every: Annotated[
        Cadence | None, Field(description="Interval between checkpoints; null: best and last only.")
    ] = None
    keep_last: Annotated[
        int,
        Field(
            ge=1,
            description="Periodic checkpoints to keep; older ones are deleted.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = 2
    keep_every: Annotated[
        Cadence | None,
        Field(
            description="Keep a periodic checkpoint permanently at this interval; null: never.",
            json_schema_extra={"unless": {"save.every": [None]}},
        ),
    ] = None
    keep_best: Annotated[
        int, Field(ge=0, description="Checkpoints of the best evaluations to keep.")
    ] = 1
    load_best: Annotated[
        bool,
        Field(
            description="Load the weights of the best evaluation at the end, for the final "
            "preview.",
            json_schema_extra={"unless": {"save.keep_best": [0]}},
        ),
    ] = False
    last: Annotated[bool, Field(description="Save a checkpoint when the run ends.")] = True
    on_signal: Annotated[
        bool, Field(description="Save a checkpoint when a signal or a resource limit ends the run.")
    ] = True
    # `async` is a word of Python, so that only the key can have that name.
    async_: Annotated[
        bool,
        Field(
            alias="async", description="Write checkpoints in the background from a copy in memory."
        ),
    ] = True
    required: Annotated[
        bool, Field(description="End the run if a checkpoint cannot be saved; off: warning only.")
    ] = True


_KEPT = {"unless": {"feature_cache.mode": ["off"]}}
_WORKERS = {"unless": {"loader.workers": [0]}}


class Loader(BaseModel, extra="forbid", frozen=True):
    """How batches are loaded."""

    workers: Annotated[
        int, Field(ge=0, description="Data-loader workers per rank (0: load in the main process).")
    ] = 0
    prefetch: Annotated[
        int,
        Field(
            ge=1,
            description="Micro-batches that each worker loads ahead.",
            json_schema_extra=_WORKERS,
        ),
    ] = 2
    persistent: Annotated[
        bool,
        Field(
            description="Keep the workers of evaluation between evaluations.",
            json_schema_extra=_WORKERS,
        ),
    ] = True
    pin_memory: Annotated[bool, Field(description="Copy batches through pinned memory (CUDA).")] = (
        True
    )


class FeatureCache(BaseModel, extra="forbid", frozen=True):
    """Cached outputs of a frozen encoder, computed once before training."""

    mode: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description=(
                "Cache the outputs of the frozen encoder on disk. auto: if "
                "they fit; on: or fail; off: recompute them in each step."
            )
        ),
    ] = "auto"
    limit_gb: Annotated[
        float,
        Field(
            gt=0,
            description="Maximum size of the cache, in 10⁹ bytes.",
            json_schema_extra=_KEPT | {"unit": "GB"},
        ),
    ] = 20.0
    folder: Annotated[
        str | None,
        Field(
            description=(
                "Folder of the cache, shared by runs and nodes. Default: the "
                "program's cache folder."
            ),
            json_schema_extra=_KEPT,
        ),
    ] = None


@dataclass(frozen=True)
class Tracker:
    """A tracker. Its module has a function `tracker(tracked, detail)` that returns a Callback."""

    module: str
    form: str
    """How the user types it."""
    detail: str | None = None
    """A regular expression for the part after its name and a colon; None: no such part."""


# W&B takes no such letters in the name of a project, and no longer ones.
_PROJECT = r"([A-Za-z0-9._-]+/)?[^\s/\\#?%:,]{1,128}"
TRACKERS: Mapping[str, Tracker] = {
    "wandb": Tracker("training.trackers.wandb_callback", "wandb[:[ENTITY/]PROJECT]", _PROJECT),
    "tensorboard": Tracker("training.trackers.tensorboard", "tensorboard"),
}
TRACKER_FORMS = ", ".join(tracker.form for tracker in TRACKERS.values())
_TRACK_PATTERN = "^({})$".format(
    "|".join(
        name if tracker.detail is None else f"{name}(:{tracker.detail})?"
        for name, tracker in TRACKERS.items()
    )
)


Track = Annotated[str, Field(pattern=_TRACK_PATTERN)]
"""A tracker by name, with its part after the colon."""
_TRACKED: dict[str, Any] = {"unless": {"track": [[]]}}


class Tracking(BaseModel, extra="forbid", frozen=True):
    """What trackers get beside metrics; `track` lists the trackers."""

    checkpoints: Annotated[
        Literal["none", "best", "all"],
        Field(description="Checkpoints to upload to W&B as artifacts.", json_schema_extra=_TRACKED),
    ] = "none"
    samples: Annotated[
        bool,
        Field(
            description="Log predictions for a few samples at each evaluation.",
            json_schema_extra=_TRACKED,
        ),
    ] = True
    wait_s: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds that a completed run waits for pending uploads.",
            json_schema_extra=_TRACKED,
        ),
    ] = 30.0


Percent = Annotated[float, Field(gt=0, le=100, json_schema_extra={"unit": "percent"})]
Profile = Literal["default", "mac", "cpu-only"]


class Critical(BaseModel, extra="forbid", frozen=True):
    """Use in percent at which one measurement triggers throttling."""

    ram: Annotated[Percent, Field(description="Host memory, of the total.")] = 95.0
    gpu: Annotated[Percent, Field(description="Device memory, of the total.")] = 95.0
    swap: Annotated[Percent, Field(description="Swap, of the total.")] = 80.0
    disk: Annotated[Percent, Field(description="File system of the run folder: save and stop.")] = (
        99.0
    )


class Limits(BaseModel, extra="forbid", frozen=True):
    """Resource use in percent at which three measurements in a row trigger throttling."""

    profile: Annotated[
        Profile, Field(description="Limits profile of a kind of machine; overrides the mode.")
    ] = "default"
    ram: Annotated[
        Percent, Field(description="Host memory; in a container, of the container's limit.")
    ] = 85.0
    gpu: Annotated[Percent, Field(description="Device memory, of the total.")] = 90.0
    swap: Annotated[Percent, Field(description="Swap, of the total.")] = 50.0
    cpu: Annotated[
        Percent | None,
        Field(description="CPU use; at the limit, fewer workers; null: not monitored."),
    ] = None
    disk: Annotated[Percent, Field(description="File system of the run folder: warning only.")] = (
        95.0
    )
    critical: Critical = Critical()
    check_every_s: Annotated[
        float, Field(gt=0, description="Seconds between two measurements.")
    ] = 30.0


TARGET_PATTERN = r"^ *([A-Za-z_][A-Za-z0-9_./-]*) *(<=|>=|=) *([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?) *$"
TARGET_FORMS = "a metric and a number, such as 'val_loss <= 1.9'; with = for the family's own goal"

# launcher/config/schema.py reads json_schema_extra: `allowed` (forms, for
# messages), `unit`, and `only_if` / `unless` (settings that decide whether this one counts).
Samples = Annotated[int, Field(json_schema_extra={"unit": "samples"})]
Steps = Annotated[int, Field(json_schema_extra={"unit": "steps"})]
_RESTARTS = {"only_if": {"schedule.name": ["cosine-restarts"]}}
_ADAMW = {"only_if": {"optim.name": ["adamw"]}}


class Train(BaseModel, extra="forbid", frozen=True):
    """Amount of training, batch sizes and seeds."""

    global_batch: Annotated[
        Samples | None,
        Field(
            ge=1,
            description="Samples per step over all ranks; or set micro_batch and accumulation.",
        ),
    ] = None
    micro_batch: Annotated[
        Samples | None, Field(ge=1, description="Samples per rank and forward and backward pass.")
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
        float | None, Field(gt=0, description="Clip gradients to this norm; null: never.")
    ] = 1.0


class Schedule(BaseModel, extra="forbid", frozen=True):
    """The learning-rate schedule."""

    name: Annotated[
        Literal["constant", "linear", "cosine", "cosine-restarts", "one-cycle"],
        Field(description="Learning-rate schedule after warm-up."),
    ] = "cosine"
    warmup: Annotated[Duration, Field(description="Length of the learning-rate warm-up.")] = 0
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
            description="cosine-restarts: length of the first cycle.", json_schema_extra=_RESTARTS
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
    """When the model is evaluated, and on what."""

    every: Annotated[
        Cadence | None, Field(description="Interval between evaluations; null: at the end only.")
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
    """Early stopping."""

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
    """Logging."""

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
    """The settings of a run that training reads."""

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
    """A setting that does not fit the data or the model: `key`, `value`, `problem`, `allowed`."""

    def __init__(self, key: str, value: object, problem: str, allowed: str, fix: str | None = None):
        self.key, self.value, self.problem, self.allowed = key, value, problem, allowed
        self.fix = fix
        hint = f"; fix: {fix}" if fix else ""
        super().__init__(f"{key} {value!r} {problem}; allowed: {allowed}{hint}")


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into a tree."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = key.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
