"""Settings with their origins: typed entries, resolved values, and the settings of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from launcher.base.diagnostics import Diagnostic, counted, plain
from launcher.config.schema import AUTO
from launcher.config.settings_file import Line

BUILT_IN_LAYER = "built-in"
FAMILY_LAYER = "family"
MODE_LAYER = "mode"
"""A mode's file, and the blocks for modes and stages in a family's file; may change defaults."""
PROFILE_LAYER = "limits profile"
"""The file that `limits.profile` names; may change values of the layers below it."""
ENGINE_LAYER = "engine"
MACHINE_LAYER = "adapted to this machine"
"""Replaces values of the layers below it; one that the user set only with a warning."""
RESUMED_LAYER = "resumed run"
"""What the resumed run had, except what Gearshift itself would choose."""
FILES_LAYER = "--config files"
CLI_LAYER = "command line"
USER_LAYERS = (RESUMED_LAYER, FILES_LAYER, CLI_LAYER)
"""What the user sets, or set when the resumed run began; the others come with Gearshift."""
FITTED_LAYERS = (ENGINE_LAYER, MACHINE_LAYER)
"""What Gearshift chooses for an engine and a machine, and chooses again for others."""
_SHIPPED_LAYERS = (BUILT_IN_LAYER, FAMILY_LAYER, MODE_LAYER, PROFILE_LAYER)
LAYERS = (*_SHIPPED_LAYERS, *FITTED_LAYERS, *USER_LAYERS)
"""Lowest first: a later layer overrides an earlier one."""

BATCH_KEYS = ("global_batch", "micro_batch", "accumulation")
"""The batch numbers in the section train."""
BATCH_SETTINGS = tuple(f"train.{name}" for name in BATCH_KEYS)
ResetPart = Literal["optimizer", "schedule", "data"]
"""State that --reset reinitializes instead of restoring it."""
DEFAULT_MODE = "default"
STAGED_MODE = "staged"
"""The mode that trains in stages."""


@dataclass(frozen=True)
class Origin:
    """Where a value comes from."""

    layer: str
    """One of LAYERS."""
    where: str
    """`mine.yaml:12`, `--engine zero2`, `ds_configs/modes/fast.yaml:4`, `built-in`, or a reason."""
    how: str = ""
    """How a mode computed it from the default: `16 × 0.25`."""


@dataclass(frozen=True)
class TypedEntry:
    """A value of a settings file or the command line, before it is checked."""

    key: str
    value: Any
    origin: Origin
    option: str | None = None
    """The option that set it; None: a file."""
    order: tuple[int, int] = (0, 0)
    """Position of the source, and line in it."""


@dataclass(frozen=True)
class Setting:
    """A resolved value with its origin, and the values it overrides, newest first."""

    value: Any
    origin: Origin
    replaced: Sequence[tuple[Any, Origin]] = ()

    @property
    def all_values(self) -> list[tuple[Any, Origin]]:
        """The value and those it overrides with their origins, newest first."""
        return [(self.value, self.origin), *self.replaced]

    def without(self, *layers: str) -> Any:
        """The value as it would be without some layers."""
        return next(value for value, origin in self.all_values if origin.layer not in layers)

    @property
    def is_of_user(self) -> bool:
        """Whether the value is of a layer of the user."""
        return self.origin.layer in USER_LAYERS

    @property
    def is_set_by_user(self) -> bool:
        """Whether the user decided the value; repeating that of a lower layer does not count."""
        return self.is_of_user and bool(self.value != self.without(*USER_LAYERS))

    @property
    def mode_default(self) -> Any:
        """The value in mode default, before the user's settings."""
        return self.without(*USER_LAYERS, MODE_LAYER, *FITTED_LAYERS)

    @property
    def shipped(self) -> Any:
        """The value of mode and family, before the user's settings."""
        return self.without(*USER_LAYERS, *FITTED_LAYERS)

    def overridden(self, value: Any, origin: Origin) -> Setting:
        """The setting with a new value on top."""
        return Setting(value, origin, tuple(self.all_values))


Values = Mapping[str, Setting]
"""Every setting by its dotted key."""


@dataclass(frozen=True)
class Chosen:
    """What engine auto chose for a run on this machine."""

    settings: Mapping[str, Any]
    """By key, with engine.name; the others make it fit."""
    reason: str
    others: Sequence[str] = ()
    """A line for each other engine: what it would need."""
    predicted_memory_bytes: Mapping[str, int | None] | None = None
    """The peaks of a rank by `device` and `host`."""

    @property
    def engine(self) -> str:
        """The engine."""
        return str(self.settings["engine.name"])

    @property
    def changes(self) -> list[str]:
        """Its settings beside the engine, as KEY=VALUE."""
        return [f"{key}={plain(value)}" for key, value in self.settings.items() if key != "engine.name"]

    @property
    def line(self) -> str:
        """The choice and its reason, for the user."""
        words = [self.engine, *(["with", *self.changes] if self.changes else [])]
        return f"{BY_AUTO}: {' '.join(words)}: {self.reason}"

    @property
    def where(self) -> str:
        """The origin of its settings."""
        return f"{BY_AUTO}: {self.reason}"


BY_AUTO = f"engine {AUTO}"
"""How the origins of settings begin that engine auto set."""


def keys_of(sets: Sequence[str]) -> set[str]:
    """The settings of KEY=VALUE texts; all batch numbers with one, since they are tied."""
    keys = {text.partition("=")[0].strip() for text in sets}
    return keys if keys.isdisjoint(BATCH_SETTINGS) else {*keys, *BATCH_SETTINGS}


@dataclass(frozen=True, eq=False)
class CliArgs:
    """The arguments of a run, as typed. Compared by identity: `selection.read_user` reads each once."""

    model: str | None = None
    """FAMILY[:SIZE]"""
    mode: str | None = None
    mode_option: str = "--mode"
    """For messages: `--mode` or `--fast`."""
    engine: str | None = None
    configs: Sequence[Path] = ()
    sets: Sequence[str] = ()
    """Each KEY=VALUE."""
    options: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key of a setting -> (option, text): "optim.lr": ("--lr", "1e-3")."""
    resume: str | None = None
    """auto, a folder, or a step."""
    resume_option: str = "--resume"
    """For messages: `--resume`, or `resume` of the command."""
    reset: Sequence[str] = ()
    """State to reinitialize, of ResetPart."""
    filled: Sequence[TypedEntry] = ()
    """Settings that follow from an option of another kind: from --stage and --from."""
    weights: str | None = None
    """The value of --from: where the first weights of a stage come from."""
    force: bool = False
    """A run starts even if its plan does not fit."""

    @property
    def mode_file(self) -> Path | None:
        """The file of a mode of the user's own, where --mode names one."""
        path = Path(self.mode or "")
        return path if path.suffix in (".yaml", ".yml") else None

    def with_sets(self, sets: Sequence[str]) -> CliArgs:
        """With `sets` instead of what was typed for the same settings."""
        keys = keys_of(sets)
        return replace(
            self,
            sets=[*(text for text in self.sets if not keys & keys_of([text])), *sets],
            options={key: option for key, option in self.options.items() if key not in keys},
            engine=None if "engine.name" in keys else self.engine,
        )


@dataclass(frozen=True)
class Batching:
    """The batch numbers of a run: global_batch = micro_batch × accumulation × world_size."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int

    @property
    def smaller(self) -> int | None:
        """The next smaller micro-batch, at most half, for the same global batch; None: none."""
        share = self.micro_batch * self.accumulation
        return next((size for size in range(self.micro_batch // 2, 0, -1) if share % size == 0), None)

    def __str__(self) -> str:
        processes = counted(self.world_size, "process")
        return f"{self.global_batch} = {self.micro_batch} × {self.accumulation} × {processes}"


@dataclass(frozen=True)
class Resolved:
    """The settings of a run with their origins, and what was decided for this machine."""

    settings: Any
    """The frozen pydantic model of schema.settings_class."""
    values: Values
    world_size: int
    nproc: int
    """Processes on this machine."""
    promises: Mapping[str, Any]
    """The promises of the mode whose scope has this run."""
    notes: Sequence[str]
    """What was filled in or adapted to this machine, one line each."""
    device: str
    """cuda, xpu, mps or cpu."""
    warnings: Sequence[Diagnostic] = ()
    chosen: Chosen | None = None
    """What engine auto chose; None: the engine was named, or follows from the processes."""
    unpromised: Mapping[str, str] = field(default_factory=dict)
    """By measure, why a promise is outside of its scope."""

    @property
    def batching(self) -> Batching:
        """The batch numbers, as the settings hold them."""
        train = self.settings.train
        return Batching(train.global_batch, train.micro_batch, train.accumulation, self.world_size)

    def with_batching(self, batching: Batching, reason: str) -> Resolved:
        """The same run with other batch numbers; `reason` is the origin of those that differ."""
        numbers = {name: getattr(batching, name) for name in BATCH_KEYS}
        origin, values = Origin(MACHINE_LAYER, reason), dict(self.values)
        for name, number in numbers.items():
            if values[f"train.{name}"].value != number:
                values[f"train.{name}"] = values[f"train.{name}"].overridden(number, origin)
        train = self.settings.train.model_copy(update=numbers)
        settings = self.settings.model_copy(update={"train": train})
        return replace(self, settings=settings, values=values, world_size=batching.world_size)


def entries(layer: str, lines: Iterable[Line], position: int = -1) -> list[TypedEntry]:
    """The entries of a file's lines; `position` is that of the file on the command line."""
    return [
        TypedEntry(key, value, Origin(layer, where), order=(position, int(where.rpartition(":")[2])))
        for key, value, where in lines
    ]
