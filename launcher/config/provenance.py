"""Settings with their origins, the arguments of a run, and its resolved settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gearshift.launcher.base.diagnostics import Diagnostic, counted
from gearshift.launcher.config.schema import AUTO, settings_class
from gearshift.launcher.config.settings_file import Line
from gearshift.models.catalog import HUB, is_custom
from gearshift.training.settings import nested

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
STAGED_MODE = "staged"
"""The mode that trains in stages."""
COMMAND_LINE = 1000
"""Position of the command line in the order of diagnostics: after all files."""
BY_AUTO = f"engine {AUTO}"
"""How the origins of settings begin that engine auto set."""


@dataclass(frozen=True)
class Origin:
    """Where a value comes from."""

    layer: str
    """One of LAYERS."""
    where: str
    """`mine.yaml:12`, `--engine zero2`, `ds_configs/modes/fast.yaml:4`, `built-in`, or a reason."""
    how: str = ""
    """How a mode computed it from the default: `{scale: 0.25} of 16`."""
    order: tuple[int, int] = field(default=(COMMAND_LINE + 1, 0), compare=False)
    """Position of the source, and line in it: the order in which diagnostics are shown."""


@dataclass(frozen=True)
class Setting:
    """A resolved value with its origin, and the values it overrides, newest first: for showing."""

    value: Any
    origin: Origin
    replaced: Sequence[tuple[Any, Origin]] = ()

    @property
    def all_values(self) -> list[tuple[Any, Origin]]:
        """The value and those it overrides with their origins, newest first."""
        return [(self.value, self.origin), *self.replaced]

    def overridden(self, value: Any, origin: Origin) -> Setting:
        """The setting with a new value on top."""
        return Setting(value, origin, tuple(self.all_values))


Values = Mapping[str, Setting]
"""Every setting by its dotted key; or those of a layer, which all their origins name."""


def as_list(value: Any) -> list[Any]:
    """The values of a setting that is one, or a list of several."""
    return value if isinstance(value, list) else [value]


def with_another(value: Any, old: Any, new: Any) -> Any:
    """The value of such a setting with `new` instead of `old`."""
    if isinstance(value, list):
        return [new if each == old else each for each in value]
    return new


def hub_names(values: Values, key: str) -> list[str]:
    """The models or data sets of the Hugging Face hub that a setting of a family names."""
    if key not in values or is_custom(values["model.family"].value):
        return []
    return [text for text in as_list(values[key].value) if str(text).startswith(HUB)]


def layer_of(layer: str, lines: Iterable[Line], position: int = -1) -> dict[str, Setting]:
    """The settings of a file's lines; `position` is that of the file on the command line."""
    settings = {}
    for number, (key, value, where) in enumerate(lines):
        settings[key] = Setting(value, Origin(layer, where, order=(position, number)))
    return settings


@dataclass(frozen=True)
class KeySets:
    """Who set which settings: computed once from the layers, and handed to the rules."""

    user: frozenset[str] = frozenset()
    """Keys that the user set, or set when the resumed run began."""
    decided: frozenset[str] = frozenset()
    """Of these, those whose value is another one than without the user."""
    auto: frozenset[str] = frozenset()
    """Keys whose value is auto before it is adapted to the machine."""
    shipped: Mapping[str, Any] = field(default_factory=dict)
    """The value of each key by mode and family, without the user."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """The same in mode default."""

    @property
    def changed(self) -> frozenset[str]:
        """Keys whose default the mode changed."""
        return frozenset(key for key in self.shipped if self.shipped[key] != self.defaults[key])

    @classmethod
    def of(cls, values: Values) -> KeySets:
        """The sets of values that are not adapted to a machine yet."""

        def without(*layers: str) -> dict[str, Any]:
            below = {}
            for key, setting in values.items():
                kept = (value for value, origin in setting.all_values if origin.layer not in layers)
                below[key] = next(kept)
            return below

        unset = without(*USER_LAYERS)
        user = frozenset(key for key in values if values[key].origin.layer in USER_LAYERS)
        return cls(
            user=user,
            decided=frozenset(key for key in user if values[key].value != unset[key]),
            auto=frozenset(key for key in values if values[key].value == AUTO),
            shipped=without(*USER_LAYERS, ENGINE_LAYER),
            defaults=without(*USER_LAYERS, ENGINE_LAYER, MODE_LAYER),
        )


@dataclass(frozen=True)
class Chosen:
    """What engine auto chose for a run on this machine."""

    engine: str
    reason: str
    others: Sequence[str] = ()
    """A line for each other engine: what it would need."""
    predicted_memory_bytes: Mapping[str, int | None] | None = None
    """The peaks of a rank by `device` and `host`."""

    @property
    def line(self) -> str:
        """The choice and its reason, for the user."""
        return f"{BY_AUTO}: {self.engine}: {self.reason}"


def keys_of(sets: Sequence[str]) -> set[str]:
    """The settings of KEY=VALUE texts; all batch numbers with one, since they are tied."""
    keys = {text.partition("=")[0].strip() for text in sets}
    return keys if keys.isdisjoint(BATCH_SETTINGS) else {*keys, *BATCH_SETTINGS}


@dataclass(frozen=True, eq=False)
class CliArgs:
    """The arguments of a run, as typed.

    Compared by identity: `selection.read_user` reads each once.
    """

    model: str | None = None
    """FAMILY[:SIZE]"""
    mode: str | None = None
    mode_option: str = "--mode"
    """For messages: `--mode` or `--fast`."""
    engine: str | None = None
    configs: Sequence[Path] = ()
    sets: Sequence[str] = ()
    """Each KEY=VALUE."""
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key of a setting -> (option, text): "optim.lr": ("--lr", "1e-3"); of --data, each text."""
    resume: str | None = None
    """auto, a folder, or a step."""
    resume_option: str = "--resume"
    """For messages: `--resume`, or `resume` of the command."""
    reset: Sequence[str] = ()
    """State to reinitialize, of ResetPart."""
    filled: Values = field(default_factory=dict)
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
            sets=[*(text for text in self.sets if keys.isdisjoint(keys_of([text]))), *sets],
            options={key: option for key, option in self.options.items() if key not in keys},
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
        sizes = (size for size in range(self.micro_batch // 2, 0, -1) if share % size == 0)
        return next(sizes, None)

    @property
    def settings(self) -> dict[str, int]:
        """The settings with these numbers."""
        return {f"train.{name}": getattr(self, name) for name in BATCH_KEYS}

    def divided(self, micro_batch: int) -> Batching:
        """The same global batch in micro-batches of `micro_batch`."""
        share = self.micro_batch * self.accumulation
        return replace(self, micro_batch=micro_batch, accumulation=share // micro_batch)

    def __str__(self) -> str:
        processes = counted(self.world_size, "process")
        return f"{self.global_batch} = {self.micro_batch} × {self.accumulation} × {processes}"


@dataclass(frozen=True)
class Resolved:
    """The settings of a run with their origins, and what was decided for this machine."""

    values: Values
    keys: KeySets
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

    @cached_property
    def settings(self) -> Any:
        """The values as the frozen pydantic model of `schema.settings_class`."""
        plain = {key: setting.value for key, setting in self.values.items()}
        return settings_class(plain["model.family"]).model_validate(nested(plain))

    @property
    def batching(self) -> Batching:
        """The batch numbers, as the settings hold them."""
        numbers = {name: self.values[f"train.{name}"].value for name in BATCH_KEYS}
        return Batching(**numbers, world_size=self.world_size)

    def changed(self, changes: Mapping[str, Any], origin: Origin, **fields: Any) -> Resolved:
        """The same run with `fields` and other values; those that differ are of `origin`."""
        new = {}
        for key, value in changes.items():
            if value != self.values[key].value:
                new[key] = self.values[key].overridden(value, origin)
        return replace(self, values={**self.values, **new}, **fields)

    def with_batching(self, batching: Batching, reason: str) -> Resolved:
        """The same run with other batch numbers; `reason` is the origin of those that differ."""
        origin = Origin(MACHINE_LAYER, reason)
        return self.changed(batching.settings, origin, world_size=batching.world_size)
