"""The settings that training reads, the trackers, durations, and keys such as optim.lr."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue
from pydantic.config import JsonDict


@dataclass(frozen=True)
class TrackerEntry:
    """A tracker. Its module has a class Session: training.trackers.follow.Tracker."""

    label: str
    """Its name in messages."""
    module: str
    form: str
    """How the user types it."""
    detail: str = ""
    """A regular expression for the part after its name."""
    extra: str | None = None
    """The package that it needs, which the extra of this name installs; None: always there."""


TRACKERS: Mapping[str, TrackerEntry] = {
    "wandb": TrackerEntry(
        label="W&B",
        module="gearshift.training.trackers.wandb",
        form="wandb[:[ENTITY/]PROJECT]",
        # W&B takes no such letters in the name of a project, and no longer ones.
        detail=r"(:([A-Za-z0-9._-]+/)?[^\s/\\#?%:,]{1,128})?",
    ),
    "tensorboard": TrackerEntry(
        label="TensorBoard",
        module="gearshift.training.trackers.tensorboard",
        form="tensorboard",
        extra="tensorboard",
    ),
    "mlflow": TrackerEntry(
        label="MLflow",
        module="gearshift.training.trackers.mlflow",
        form="mlflow[:EXPERIMENT]",
        detail=r"(:[^\s:,]+)?",
        extra="mlflow",
    ),
}
"""By name, which is that of its folder in a run folder, too."""
TRACKER_FORMS = ", ".join(tracker.form for tracker in TRACKERS.values())
TRACK_PATTERN = f"^({'|'.join(name + tracker.detail for name, tracker in TRACKERS.items())})$"
Track = Annotated[str, Field(pattern=TRACK_PATTERN)]
"""A tracker by name, with its part after the colon."""


PROFILE_WARMUP = 2
"""Steps before those of log.profile: they compile, choose kernels and allocate."""


DAY_S = 86400
"""The longest wait that a setting may ask of a thread or a process."""


_SHARE = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?%$")
_EPOCHS = re.compile(r"^([0-9]{1,12}(?:\.[0-9]+)?) epochs?$")
MOST_STEPS = 10**12
DURATION_FORMS = "a number of steps, a share such as '5%', or epochs such as '2 epochs'"


def validate_duration(length: int | str) -> int | str:
    """`length` unchanged. Raises ValueError if it is none of DURATION_FORMS or above MOST_STEPS."""
    if duration_steps(length, 1000, 100_000) > MOST_STEPS:
        raise ValueError(f"{length!r} is too long; allowed: {DURATION_FORMS}")
    return length


def validate_cadence(length: int | str) -> int | str:
    """`length` unchanged. Raises ValueError if it is not one of DURATION_FORMS, or is zero."""
    if not duration_steps(length, 1000, 100_000):
        raise ValueError(f"{length!r} is zero; allowed: {DURATION_FORMS}")
    return validate_duration(length)


def duration_steps(length: int | str, steps_per_epoch: int, total_steps: int) -> int:
    """`length` in steps, rounded to the nearest; at least 1 unless it is 0.

    Raises ValueError if `length` is negative, above 100% or not one of DURATION_FORMS.
    """
    exact: float | None = duration_epochs(length)
    if isinstance(length, int):
        exact = length
    elif exact is not None:
        exact *= steps_per_epoch
    else:
        share = _SHARE.match(length.strip())
        if share is not None and float(share[1]) <= 100:
            exact = float(share[1]) / 100 * total_steps
    if exact is None or exact < 0:
        raise ValueError(f"{length!r} is not a duration; allowed: {DURATION_FORMS}")
    if exact == 0:
        return 0
    return max(1, round(exact))


def duration_epochs(length: int | str) -> float | None:
    """The number of epochs in `length`; None if it is in steps or a share."""
    match = _EPOCHS.match(str(length).strip())
    return None if match is None else float(match[1])


SLURM = "slurm"
"""The budget of time that is what the Slurm job has left."""
TIME_FORMS = "a number of s, m, h or d, such as '45s', '90m' or '2h'; or slurm"
TIME_PATTERN = r"^([1-9][0-9]{0,8}(\.[0-9]+)?[smhd]|slurm)$"
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": DAY_S}


def time_s(text: str) -> float | None:
    """The seconds of a budget of time such as `90m`; None: SLURM."""
    return None if text == SLURM else float(text[:-1]) * _SECONDS[text[-1]]


Duration = Annotated[int | str, AfterValidator(validate_duration)]
"""The type of a setting that is a duration."""
Cadence = Annotated[int | str, AfterValidator(validate_cadence)]
"""The type of a setting that is the distance between two repetitions."""


Count = Annotated[int, Field(ge=1, le=10**6)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
"""Between 0 and 1."""


def _rule(kind: Literal["only_if", "unless"], key: str, *values: JsonValue) -> JsonDict:
    """The settings that decide whether one counts, for its `json_schema_extra`."""
    return {kind: {key: [*values]}}


class Section(BaseModel):
    """A section of settings; the text below a field is its description."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class Save(Section):
    """When checkpoints are saved, and which stay."""

    every: Cadence | None = None
    """Interval between checkpoints; null: best and last only."""
    keep_last: Count = Field(
        default=2,
        json_schema_extra=_rule("unless", "save.every", None),
    )
    """Periodic checkpoints to keep; older ones are deleted."""
    keep_every: Cadence | None = Field(
        default=None,
        json_schema_extra=_rule("unless", "save.every", None),
    )
    """Keep a periodic checkpoint permanently at this interval; null: never."""
    keep_best: int = Field(default=1, ge=0, le=10**6)
    """Checkpoints of the best evaluations to keep."""
    load_best: bool = Field(default=False, json_schema_extra=_rule("unless", "save.keep_best", 0))
    """Load the weights of the best evaluation at the end, for the final preview."""
    last: bool = True
    """Save a checkpoint when the run ends."""
    on_signal: bool = True
    """Save a checkpoint when a signal or a resource limit ends the run."""
    # `async` is a word of Python, so that only the key can have that name.
    async_: bool = Field(default=True, alias="async")
    """Write checkpoints in the background from a copy in memory."""
    required: bool = True
    """End the run if a checkpoint cannot be saved; off: warning only."""


_KEPT = _rule("unless", "feature_cache.mode", "off")
_WORKERS = _rule("unless", "loader.workers", 0)


class Loader(Section):
    """How batches are loaded."""

    workers: int = Field(default=0, ge=0, le=1024)
    """Data-loader workers per rank (0: load in the main process)."""
    prefetch: int = Field(default=2, ge=1, le=1000, json_schema_extra=_WORKERS)
    """Micro-batches that each worker loads ahead."""
    persistent: bool = Field(default=True, json_schema_extra=_WORKERS)
    """Keep the workers of evaluation between evaluations."""
    pin_memory: bool = True
    """Copy batches through pinned memory (CUDA)."""


class FeatureCache(Section):
    """Cached outputs of a frozen encoder, computed once before training."""

    mode: Literal["auto", "on", "off"] = "auto"
    """Cache the outputs of the frozen encoder on disk. auto: if they fit; on: or fail; off:
    recompute them in each step."""
    limit_gb: float = Field(
        default=20.0,
        gt=0,
        le=10**6,
        json_schema_extra=_KEPT | {"unit": "GB"},
    )
    """Maximum size of the cache, in 10⁹ bytes."""
    folder: str | None = Field(default=None, json_schema_extra=_KEPT)
    """Folder of the cache, shared by runs and nodes. Default: the program's cache folder."""


_TRACKED = _rule("unless", "track", [])


class Tracking(Section):
    """What trackers get beside metrics; `track` lists the trackers."""

    checkpoints: Literal["none", "best", "all"] = Field(default="none", json_schema_extra=_TRACKED)
    """Checkpoints to upload as artifacts to W&B and MLflow."""
    samples: bool = Field(default=True, json_schema_extra=_TRACKED)
    """Log predictions for a few samples at each evaluation."""
    wait_s: float = Field(default=30.0, ge=0, le=DAY_S, json_schema_extra=_TRACKED)
    """Seconds that a completed run waits for pending uploads."""


Percent = Annotated[float, Field(gt=0, le=100, json_schema_extra={"unit": "percent"})]
Profile = Literal["default", "mac", "cpu-only"]


class Critical(Section):
    """Use at which one measurement triggers throttling."""

    ram: Percent = 95.0
    """Host memory, of the total."""
    gpu: Percent = 95.0
    """Device memory that other processes use, of the total."""
    swap: Percent = 80.0
    """Swap, of the total."""


class Limits(Section):
    """Resource use at which three measurements in a row trigger throttling."""

    profile: Profile = "default"
    """Limits profile of a kind of machine; overrides the mode."""
    ram: Percent = 85.0
    """Host memory; in a container, of the container's limit."""
    gpu: Percent = 90.0
    """Device memory that other processes use, of the total; a run may fill the rest."""
    swap: Percent = 50.0
    """Swap, of the total."""
    critical: Critical = Critical()
    check_every_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """Seconds between two measurements."""


TARGET_PATTERN = (
    r"^ *([A-Za-z_][A-Za-z0-9_./-]*) *(<=|>=|=) *([-+]?[0-9.]+(?:[eE][-+]?[0-9]{1,2})?) *$"
)
TARGET_FORMS = "a metric and a number, such as 'val_loss <= 1.9'; with = for the family's own goal"

# launcher/config/schema.py reads json_schema_extra: `allowed` (forms, for
# messages), `unit`, and `only_if` / `unless` (settings that decide whether this one counts).
Samples = Annotated[int, Field(le=10**9, json_schema_extra={"unit": "samples"})]
Steps = Annotated[int, Field(le=MOST_STEPS, json_schema_extra={"unit": "steps"})]
_RESTARTS = _rule("only_if", "schedule.name", "cosine-restarts")
_WSD = _rule("only_if", "schedule.name", "wsd")
_PLATEAU = _rule("only_if", "schedule.name", "plateau")
_ADAMW = _rule("only_if", "optim.name", "adamw", "muon")


class Train(Section):
    """Amount of training, batch sizes and seeds."""

    global_batch: Samples | None = Field(default=None, ge=1)
    """Samples per step over all ranks; or set micro_batch and accumulation."""
    micro_batch: Samples | None = Field(default=None, ge=1)
    """Samples per rank and forward and backward pass."""
    accumulation: Count | None = None
    """Micro-batches per step with one process; more processes need fewer each."""
    epochs: float | None = Field(default=1.0, gt=0, le=10**6)
    """Epochs: passes over the training data; null: as many as `max_steps` takes."""
    max_steps: Steps | None = Field(default=None, ge=1)
    """Stop after N steps; overrides `epochs`, unless you set both: the earlier one ends the run."""
    time: str | None = Field(
        default=None,
        pattern=TIME_PATTERN,
        json_schema_extra={"allowed": TIME_FORMS},
    )
    """Train as many steps as fit into this time, evaluations and saves included, such as '90m' or
    '2h'; slurm: what is left of the job. With `epochs` or `max_steps` the earlier end counts. In
    continual learning: save and stop after this time."""
    least_steps: Steps | None = Field(
        default=None, ge=1, json_schema_extra=_rule("unless", "mode", "default")
    )
    """Steps that an epoch, or a shorter run, keeps: on little data a mode's global batch grows less
    over the default's, or not at all. null: no limit, or the batch fits the data already."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Random seed."""
    deterministic: bool = False
    """Use deterministic algorithms only; slower on a GPU."""
    debug: bool = False
    """Detect anomalies in autograd."""
    on_nonfinite: str = Field(
        default="stop",
        pattern=r"^(stop|skip [1-9][0-9]{0,8})$",
        json_schema_extra={"allowed": "stop, or such as 'skip 3'"},
    )
    """Action on a loss, a gradient, or an evaluation of the goal or val_loss, that is NaN or
    infinite: stop, or `skip N` (at most N steps, or evaluations, in a row)."""
    ema: Fraction | None = None
    """Decay of the EMA of the weights, which evaluation uses, after t steps at most
    (1 + t) / (10 + t); null: off."""
    preview: bool = True
    """Show a sample output of the model before and after training."""
    timing: bool = False
    """Synchronize after each step and report step times."""


LOW_BIT_LEAST = 4096
"""Elements of a parameter, or of its shard, from which `optim.state` decides about its moments."""


class Optim(Section):
    """The optimizer."""

    name: Literal["adamw", "adafactor", "muon", "sgd"] = "adamw"
    """Optimizer. adamw stores two values per element of a weight; adafactor one per row and
    column; muon one per element of the matrices of blocks, whose momentum it orthogonalizes."""
    state: Literal["fp32", "bf16", "int8"] = "fp32"
    """Both moments of AdamW: fp32, 8 bytes per element of a weight; bf16, 4; int8, codes and scales
    of 2 bytes. Checkpoints have them in fp32."""
    lr: Positive = 1e-3
    """Peak learning rate."""
    groups: dict[str, Positive] = Field(
        default_factory=dict,
        json_schema_extra={"allowed": "names of parts, each with a factor above 0"},
    )
    """Factor of the learning rate for each named part of the model, such as {encoder: 0.1}; other
    parts have 1."""
    layer_decay: Fraction | None = None
    """Factor of the learning rate from each layer of a language model to the layer below it; null:
    all layers have the same."""
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default=[0.9, 0.95],
        min_length=2,
        max_length=2,
        json_schema_extra=_ADAMW | {"allowed": "two numbers, each at least 0 and below 1"},
    )
    """AdamW, and Muon for other parameters than matrices: decay rates of both moments."""
    eps: Positive = Field(default=1e-8, json_schema_extra=_ADAMW)
    """AdamW and Muon: term that prevents division by zero."""
    momentum: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        json_schema_extra=_rule("only_if", "optim.name", "sgd", "muon"),
    )
    """SGD and Muon: momentum; null: 0.9 for SGD, 0.95 for Muon."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of parameters with two or more dimensions."""
    clip_norm: Positive | None = 1.0
    """Clip gradients to this norm; null: never."""

    @property
    def used_momentum(self) -> float:
        default = 0.95 if self.name == "muon" else 0.9
        return default if self.momentum is None else self.momentum

    @property
    def slots(self) -> int:
        """Values that the optimizer keeps for each element of a matrix, at least."""
        of_sgd = int(self.used_momentum > 0)
        return {"adamw": 2, "muon": 1, "sgd": of_sgd, "adafactor": 0}[self.name]

    @property
    def least_bytes(self) -> int:
        """Their bytes in memory."""
        return self.slots * {"fp32": 4, "bf16": 2, "int8": 1}[self.state]


class Schedule(Section):
    """The learning-rate schedule."""

    name: Literal[
        "constant", "linear", "cosine", "cosine-restarts", "one-cycle", "wsd", "plateau"
    ] = "cosine"
    """Learning-rate schedule after warm-up. wsd (warm-up, stable, decay) keeps the peak until a
    decay at the end, so a run can be trained on; plateau lowers it where `eval.metric` stalls."""
    warmup: Duration = 0
    """Length of the learning-rate warm-up."""
    final: float = Field(
        default=0.0,
        ge=0,
        le=1,
        json_schema_extra=_rule("unless", "schedule.name", "constant"),
    )
    """Final learning rate, as a share of the peak."""
    cycle: Cadence = Field(default="10 epochs", json_schema_extra=_RESTARTS)
    """cosine-restarts: length of the first cycle."""
    t_mult: float = Field(default=2.0, ge=1, le=1000, json_schema_extra=_RESTARTS)
    """cosine-restarts: length of a cycle relative to the cycle before."""
    decay: Duration = Field(default="20%", json_schema_extra=_WSD)
    """wsd: length of the decay at the end of the run."""
    patience: Count = Field(default=2, json_schema_extra=_PLATEAU | {"unit": "evaluations"})
    """plateau: evaluations (`eval.every`, `eval.each_epoch`) without improvement before a drop."""
    drop: Fraction = Field(default=0.5, json_schema_extra=_PLATEAU)
    """plateau: factor of the learning rate at a drop, down to `final`."""
    warmup_cap: Duration | None = None
    """Shorten a longer warm-up to this, with a warning; null: never."""


_CONTROLS = _rule("unless", "data.control", "noise", "noise-signal", "shuffle")


class Eval(Section):
    """When the model is evaluated, and on what."""

    every: Cadence | None = "1 epoch"
    """Interval between evaluations; null: at the end only."""
    each_epoch: bool = False
    """Evaluate also at the end of each epoch."""
    last: bool = True
    """Evaluate when the run ends."""
    test: bool = False
    """Evaluate the test split at the end, with the weights that `save.load_best` chooses."""
    share: Fraction = 0.1
    """Share of the data's groups to hold out for validation."""
    samples: Samples | None = Field(default=None, ge=1, json_schema_extra=_CONTROLS)
    """Validation samples of an evaluation, spread over the split, always the same ones; null: all.
    `evaluate`, the test split and a noise control use all."""
    metric: str | None = None
    """Metric of the best checkpoint and its direction: 'accuracy max'. Default: the goal of the
    model family."""


class Stop(Section):
    """Early stopping."""

    patience: Count | None = None
    """Evaluations at `eval.every` or `eval.each_epoch` without improvement before the run stops;
    null: never."""
    min_delta: float = Field(
        default=0.0,
        ge=0,
        json_schema_extra=_rule("unless", "stop.patience", None),
    )
    """Minimum change of the metric that counts as an improvement."""
    at: str | None = Field(
        default=None,
        pattern=TARGET_PATTERN,
        json_schema_extra={"allowed": TARGET_FORMS},
    )
    """Stop at the first evaluation that reaches this: 'val_loss <= 1.9'; null: never."""
    after: Cadence | None = None
    """Stop early after this long, with the schedule of the full run; null: run to the end."""


class Log(Section):
    """Logging."""

    every: Steps = Field(default=10, ge=1)
    """Steps between two training lines in metrics.jsonl."""
    stragglers: float | None = Field(default=1.5, gt=1)
    """Report a rank that is persistently this many times slower than the others; null: never."""
    profile: Steps | None = Field(default=None, ge=1)
    """Write a profiler trace of N steps, after two warm-up steps; null: none."""


class TrainingSettings(Protocol):
    """The settings of a run that training reads."""

    train: Train
    optim: Optim
    schedule: Schedule
    loader: Loader
    eval: Eval
    stop: Stop
    save: Save
    log: Log
    tracking: Tracking

    @property
    def track(self) -> Sequence[str]: ...
    @property
    def precision(self) -> str: ...


@dataclass(eq=False)
class SettingError(ValueError):
    """A setting that does not fit the data or the model."""

    key: str
    value: object
    problem: str
    allowed: str
    fix: str | None = None
    did_you_mean: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        advice = f"; fix: {self.fix}" if self.fix else ""
        return f"{self.key} {self.value!r} {self.problem}; allowed: {self.allowed}{advice}"


Tree = dict[str, Any]


def flat(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """Turn a tree into dotted keys: the inverse of `nested`, also of values that are mappings."""
    values: Tree = {}
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def nested(values: Mapping[str, Any]) -> Tree:
    """Turn dotted keys into a tree."""
    tree: Tree = {}
    for key, value in values.items():
        *above, last = key.split(".")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree
