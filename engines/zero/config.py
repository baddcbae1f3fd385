"""DeepSpeed config: validating a user's file against the settings, and merging it."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_KEYS: dict[str, Any] = json.loads(Path(__file__).with_name("config_keys.json").read_text("utf-8"))
SETTINGS_BLOCKS: dict[str, str] = _KEYS["settings_blocks"]
"""Blocks that repeat a setting, by its key; they are checked, not passed to DeepSpeed."""
SETTINGS_VALUES = frozenset(_KEYS["settings_values"])
"""Single values that repeat a setting."""
FIXED: dict[str, Any] = _KEYS["fixed"]
"""Values that these engines require."""
FREE = frozenset(_KEYS["free"])
"""Keys that are passed to DeepSpeed as written."""
UNSUPPORTED: dict[str, str | None] = _KEYS["unsupported"]
"""Keys that these engines do not support, with the setting to use instead."""
ZERO = frozenset(_KEYS["zero"])
"""Keys of `zero_optimization` that are passed to DeepSpeed as written."""
ZERO_FIXED: dict[str, Any] = _KEYS["zero_fixed"]
"""Values of `zero_optimization` that these engines require."""
ZERO_UNSUPPORTED: dict[str, str | None] = _KEYS["zero_unsupported"]
"""Keys of `zero_optimization` with a state that a checkpoint cannot represent."""
OFFLOAD = {key: frozenset(allowed) for key, allowed in _KEYS["offload"].items()}
"""Keys of the two offload blocks that are passed to DeepSpeed as written."""
OFFLOAD_UNSUPPORTED = frozenset(_KEYS["offload_unsupported"])
"""Keys of the offload blocks for NVMe, partial offload or DeepSpeed's own Adam only."""
AUTO = "auto"
"""Hugging Face's value for: taken from the settings."""
MAX_SHOWN = 12
"""More allowed keys than this are not listed."""


@dataclass(frozen=True)
class SettingValue:
    """The value of one setting for one key of a DeepSpeed config."""

    key: str
    value: Any
    """The value of the setting."""
    means: tuple[Any, ...]
    """The equivalent values of DeepSpeed's key."""
    follow: Callable[[Any], str | None]
    """The option that sets the setting to DeepSpeed's value; None: there is none."""


SettingValues = Mapping[str, SettingValue]
"""Settings by DeepSpeed's dotted key."""


@dataclass(frozen=True)
class Conflict:
    """A key of a DeepSpeed config that conflicts with the settings."""

    key: str
    """Dotted, as in `zero_optimization.stage`."""
    value: Any
    problem: str
    """The problem with the value: `differs from optim.clip_norm`."""
    fix: str
    setting: str | None = None
    """The setting that decides the key; None: there is none."""
    setting_value: Any = None
    """The value of the setting; None if `setting` is a section."""
    allowed: tuple[str, ...] = ()
    did_you_mean: str | None = None


class ConfigConflict(ValueError):
    """A DeepSpeed config conflicts with the settings; `conflicts` has every case."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__("; ".join(f"{c.key} {c.value!r} {c.problem}: {c.fix}" for c in conflicts))


def merge(
    shipped: Mapping[str, Any], user: Mapping[str, Any], settings: SettingValues
) -> dict[str, Any]:
    """`user` merged over `shipped`, without the keys that settings decide; the engine adds those.

    Raises ConfigConflict.
    """
    if problems := conflicts(user, settings):
        raise ConfigConflict(problems)
    return _merge(shipped, _without_auto({k: v for k, v in user.items() if k in FREE}))


def _without_auto(block: Mapping[str, Any]) -> dict[str, Any]:
    values = {k: _without_auto(v) if isinstance(v, Mapping) else v for k, v in block.items()}
    return {k: v for k, v in values.items() if v is not None and v != AUTO}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged


def conflicts(user: Mapping[str, Any], settings: SettingValues) -> list[Conflict]:
    """All conflicts of a user's DeepSpeed config with the settings, in the order of the file."""
    return [conflict for key, value in user.items() for conflict in _top(key, value, settings)]


def _top(key: str, value: Any, settings: SettingValues) -> Iterator[Conflict]:
    allowed = {
        *FREE,
        *SETTINGS_BLOCKS,
        *SETTINGS_VALUES,
        *FIXED,
    }
    if key not in allowed and key not in UNSUPPORTED:
        yield _unknown(key, value, allowed)
    elif _is_auto(value):
        return
    elif key in UNSUPPORTED:
        yield from _unsupported(key, value, UNSUPPORTED[key])
    elif key == "zero_optimization":
        yield from _zero(value, settings)
    elif key in SETTINGS_BLOCKS:
        yield from _block(key, value, settings)
    elif key in SETTINGS_VALUES:
        yield from _differing(key, value, settings[key])
    elif key in FIXED:
        yield from _not_fixed(key, value, FIXED[key])


def _zero(block: Any, settings: SettingValues) -> Iterator[Conflict]:
    if not isinstance(block, Mapping):
        yield _no_object("zero_optimization", block)
        return
    for name, value in block.items():
        key = f"zero_optimization.{name}"
        if name not in {*ZERO, *ZERO_FIXED, *ZERO_UNSUPPORTED}:
            yield _unknown(key, value, {f"zero_optimization.{k}" for k in ZERO})
        elif _is_auto(value):
            continue
        elif name in ZERO_FIXED:
            yield from _not_fixed(key, value, ZERO_FIXED[name])
        elif name in ZERO_UNSUPPORTED:
            yield from _unsupported(key, value, ZERO_UNSUPPORTED[name])
        elif name in OFFLOAD:
            yield from _offload(key, value, OFFLOAD[name], settings)
        elif key in settings:
            yield from _differing(key, value, settings[key])


def _offload(
    key: str, block: Any, allowed: Iterable[str], settings: SettingValues
) -> Iterator[Conflict]:
    if not isinstance(block, Mapping):
        yield _no_object(key, block)
        return
    for name, value in block.items():
        leaf = f"{key}.{name}"
        if leaf in settings:
            yield from _differing(leaf, value, settings[leaf])
        elif name in OFFLOAD_UNSUPPORTED:
            yield from _unsupported(leaf, value, None)
        elif name not in allowed:
            yield _unknown(leaf, value, {f"{key}.{k}" for k in allowed})


def _block(key: str, block: Any, settings: SettingValues) -> Iterator[Conflict]:
    """A block that repeats settings: each leaf must be `auto` or equal the setting."""
    if not isinstance(block, Mapping):
        yield _no_object(key, block)
        return
    switch = settings.get(f"{key}.enabled")
    # The rest of a precision block that is off has no effect.
    if switch and (enabled := block.get("enabled", False)) is not True:
        yield from _differing(f"{key}.enabled", enabled, switch)
        return
    for leaf, value in _leaves(key, block):
        if leaf in settings:
            yield from _differing(leaf, value, settings[leaf])
        else:
            yield from _unsupported(leaf, value, SETTINGS_BLOCKS[key])


def _leaves(prefix: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


def _differing(key: str, value: Any, setting: SettingValue) -> Iterator[Conflict]:
    if _is_auto(value) or any(_equal(value, meant) for meant in setting.means):
        return
    leave = f'leave it out or write "{AUTO}"'
    follow = setting.follow(value)
    yield Conflict(
        key,
        value,
        f"differs from {setting.key}",
        f"{leave}; or  {follow}" if follow else leave,
        setting.key,
        setting.value,
        tuple(_as_text(meant) for meant in (*setting.means, AUTO)),
    )


def _not_fixed(key: str, value: Any, needed: Any) -> Iterator[Conflict]:
    if not _equal(value, needed):
        text = _as_text(needed)
        problem = f"must be {text} under this engine{_reason(key)}"
        yield Conflict(key, value, problem, "leave it out", allowed=(text,))


def _unsupported(key: str, value: Any, setting: str | None) -> Iterator[Conflict]:
    switch = value.get("enabled") if isinstance(value, Mapping) else value
    if _is_auto(value) or switch is False or value == {}:
        return
    problem = f"is decided by {setting}" if setting else "is not supported by this engine"
    yield Conflict(key, value, problem + _reason(key), "leave it out", setting)


def _reason(key: str) -> str:
    """Why a value is fixed or a key is not supported, after a colon."""
    return f": {_KEYS['why'][key]}" if key in _KEYS["why"] else ""


def _unknown(key: str, value: Any, allowed: Iterable[str]) -> Conflict:
    nearest = difflib.get_close_matches(key, allowed := sorted(allowed), 1, 0.6)
    fix = f"{nearest[0].rpartition('.')[2]}" if nearest else "leave it out"
    return Conflict(
        key,
        value,
        "is unknown",
        fix,
        allowed=tuple(allowed) if len(allowed) <= MAX_SHOWN else (),
        did_you_mean=nearest[0] if nearest else None,
    )


def _no_object(key: str, value: Any) -> Conflict:
    return Conflict(key, value, "must be an object", f'"{key.rpartition(".")[2]}": {{…}}')


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_auto(value: Any) -> bool:
    return value is None or value == AUTO


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a.casefold() == b.casefold()
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    # In Python True == 1; in JSON it is not.
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


OPTIMIZERS = {"adamw": ("AdamW", "Adam"), "sgd": ("SGD",)}
"""DeepSpeed's names of our optimizers; its Adam decays weights as AdamW does."""

SCHEDULES = {
    "constant": ("WarmupLR",),
    "linear": ("WarmupDecayLR",),
    "cosine": ("WarmupCosineLR",),
    "cosine-restarts": (),
    "one-cycle": ("OneCycle",),
    "wsd": (),
    "plateau": (),
}
"""DeepSpeed's names of our schedules."""

ENGINES = {
    (1, False): "zero1",
    (2, False): "zero2",
    (3, False): "zero3",
    (2, True): "zero2-offload",
    (3, True): "zero3-offload",
}
"""Engines by stage and optimizer offload."""


class BatchNumbers(Protocol):
    """The batch numbers of a step."""

    @property
    def global_batch(self) -> int:
        """Samples per step over all ranks."""

    @property
    def micro_batch(self) -> int:
        """Samples per forward and backward pass of a rank."""

    @property
    def accumulation(self) -> int:
        """Micro-batches per step and rank."""


def setting_values(
    engine: str, shipped: Mapping[str, Any], batching: BatchNumbers, settings: Any
) -> dict[str, SettingValue]:
    """The setting for each key of a DeepSpeed config that repeats one.

    `shipped` is the config of `engine`, which fixes stage and offload; of `settings` the sections
    `optim` and `schedule` and the value `precision` are read.
    """
    return {
        **_batch(batching),
        **_optimizer(settings.optim),
        "scheduler.type": _named("schedule.name", settings.schedule.name, SCHEDULES),
        **_precision(settings.precision),
        **_sharding(engine, shipped["zero_optimization"]),
    }


def _batch(batching: BatchNumbers) -> dict[str, SettingValue]:
    return {
        "train_batch_size": _number("train.global_batch", batching.global_batch),
        "train_micro_batch_size_per_gpu": _number("train.micro_batch", batching.micro_batch),
        # train.accumulation is for one process, DeepSpeed's for each of many: no option follows it.
        "gradient_accumulation_steps": SettingValue(
            "train.accumulation", batching.accumulation, (batching.accumulation,), _no_option
        ),
    }


def _optimizer(optim: Any) -> dict[str, SettingValue]:
    params = {
        "lr": _number("optim.lr", optim.lr),
        "weight_decay": _number("optim.weight_decay", optim.weight_decay),
    }
    if optim.name == "adamw":
        params["betas"] = _number("optim.betas", list(optim.betas))
        params["eps"] = _number("optim.eps", optim.eps)
        params["adam_w_mode"] = SettingValue("optim.name", optim.name, (True,), _no_option)
        params["torch_adam"] = SettingValue("optim.name", optim.name, (True, False), _no_option)
    else:
        params["momentum"] = _number("optim.momentum", optim.used_momentum)
    clip = optim.clip_norm
    return {
        "gradient_clipping": SettingValue("optim.clip_norm", clip, (clip or 0.0,), _clip),
        "optimizer.type": _named("optim.name", optim.name, OPTIMIZERS),
        **{f"optimizer.params.{name}": setting for name, setting in params.items()},
    }


def _precision(precision: str) -> dict[str, SettingValue]:
    blocks = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "torch_autocast": None}
    section = "bf16" if precision == "fp8" else precision

    def follow(value: str | None) -> Callable[[Any], str | None]:
        return lambda on: f"--precision {value if on is True else 'fp32'}" if value else None

    return {
        f"{block}.enabled": SettingValue("precision", precision, (section == on,), follow(on))
        for block, on in blocks.items()
    }


def _sharding(engine: str, zero: Mapping[str, Any]) -> dict[str, SettingValue]:
    stage = zero["stage"]
    offload = zero.get("offload_optimizer", {}).get("device", "none")
    weights = zero.get("offload_param", {}).get("device", "none")

    def other(stage: Any, offload: bool) -> str | None:
        name = ENGINES.get((stage, offload)) if isinstance(stage, int) else None
        return f"--engine {name}" if name and name != engine else None

    return {
        "zero_optimization.stage": SettingValue(
            "engine.name", engine, (stage,), lambda to: other(to, offload == "cpu")
        ),
        "zero_optimization.offload_optimizer.device": SettingValue(
            "engine.name", engine, (offload,), lambda to: other(stage, to == "cpu")
        ),
        # An engine with weights in host memory may leave them on the device.
        "zero_optimization.offload_param.device": SettingValue(
            "engine.name",
            engine,
            (weights,) if weights == "none" else (weights, "none"),
            lambda to: other(3, True) if to == "cpu" else None,
        ),
    }


def _number(key: str, value: Any) -> SettingValue:
    return SettingValue(
        key, value, (value,), lambda to: None if _is_not_a_number(to) else _set(key, to)
    )


def _clip(value: Any) -> str | None:
    return None if _is_not_a_number(value) else _set("optim.clip_norm", value or None)


def _is_not_a_number(value: Any) -> bool:
    return isinstance(value, (bool, str, Mapping))


def _set(key: str, value: Any) -> str:
    return "--set " + shlex.quote(f"{key}={json.dumps(value)}")


def _named(key: str, value: str, names: Mapping[str, tuple[str, ...]]) -> SettingValue:
    ours = {theirs.casefold(): name for name, all_ in names.items() for theirs in all_}

    def follow(to: Any) -> str | None:
        name = ours.get(str(to).casefold())
        return f"--set {key}={name}" if name else None

    return SettingValue(key, value, names[value], follow)


def _no_option(_: Any) -> None:
    return None
