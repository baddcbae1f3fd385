"""A person's DeepSpeed JSON beside the settings: where they differ, and what both give."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engines.zero import config_keys

AUTO = "auto"
"""Hugging Face's word for: taken from the settings."""

MOST_SHOWN = 12
"""Legal keys beyond this number are not listed."""


@dataclass(frozen=True)
class Setting:
    """What one setting says about one key of DeepSpeed's JSON."""

    key: str
    value: Any
    """As in the settings."""
    means: tuple[Any, ...]
    """The values of DeepSpeed's key that say the same."""
    follow: Callable[[Any], str | None]
    """From DeepSpeed's value the option that makes the setting follow it; None: there is none."""


Told = Mapping[str, Setting]
"""What the settings say, by DeepSpeed's dotted key."""


@dataclass(frozen=True)
class Conflict:
    """A key of a DeepSpeed JSON that cannot stand beside the settings."""

    key: str
    """Dotted, as in `zero_optimization.stage`."""
    value: Any
    problem: str
    """What is wrong with the value: `differs from optim.clip_norm`, `is not known`."""
    fix: str
    setting: str | None = None
    """The setting that has the say; None: no setting speaks of it."""
    told: Any = None
    """The setting's value; None where `setting` is a section."""
    allowed: tuple[str, ...] = ()
    did_you_mean: str | None = None


class ConfigConflict(ValueError):
    """A DeepSpeed JSON contradicts the settings; `conflicts` has every case."""

    def __init__(self, found: Sequence[Conflict]) -> None:
        self.conflicts = tuple(found)
        super().__init__("; ".join(f"{c.key} {c.value!r} {c.problem}: {c.fix}" for c in found))


def merge(shipped: Mapping[str, Any], own: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """`own` over `shipped`, without what the settings say: the engine adds that when it starts.

    Raises ConfigConflict.
    """
    if found := conflicts(own, told):
        raise ConfigConflict(found)
    return _over(shipped, _said({k: v for k, v in own.items() if k in config_keys.FREE}))


def _said(block: Mapping[str, Any]) -> dict[str, Any]:
    said = {k: _said(v) if isinstance(v, Mapping) else v for k, v in block.items()}
    return {k: v for k, v in said.items() if v is not None and v != AUTO}


def _over(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(under)
    for key, value in over.items():
        below = both.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            both[key] = _over(below, value)
        else:
            both[key] = value
    return both


def conflicts(own: Mapping[str, Any], told: Told) -> list[Conflict]:
    """All that is wrong with a person's DeepSpeed JSON beside the settings, in the file's order."""
    return [conflict for key, value in own.items() for conflict in _top(key, value, told)]


def _top(key: str, value: Any, told: Told) -> Iterator[Conflict]:
    allowed = {
        *config_keys.FREE,
        *config_keys.TOLD_BLOCKS,
        *config_keys.TOLD_VALUES,
        *config_keys.FIXED,
    }
    if key not in allowed and key not in config_keys.REFUSED:
        yield _unknown(key, value, allowed)
    elif _is_silent(value):
        return
    elif key in config_keys.REFUSED:
        yield from _refused(key, value, config_keys.REFUSED[key])
    elif key == "zero_optimization":
        yield from _zero(value, told)
    elif key in config_keys.TOLD_BLOCKS:
        yield from _block(key, value, told)
    elif key in config_keys.TOLD_VALUES:
        yield from _differing(key, value, told[key])
    elif key in config_keys.FIXED:
        yield from _not_fixed(key, value, config_keys.FIXED[key])


def _zero(block: Any, told: Told) -> Iterator[Conflict]:
    if not isinstance(block, Mapping):
        yield _no_object("zero_optimization", block)
        return
    for name, value in block.items():
        key = f"zero_optimization.{name}"
        if name not in {*config_keys.ZERO, *config_keys.ZERO_FIXED, *config_keys.ZERO_REFUSED}:
            yield _unknown(key, value, {f"zero_optimization.{k}" for k in config_keys.ZERO})
        elif _is_silent(value):
            continue
        elif name in config_keys.ZERO_FIXED:
            yield from _not_fixed(key, value, config_keys.ZERO_FIXED[name])
        elif name in config_keys.ZERO_REFUSED:
            yield from _refused(key, value, config_keys.ZERO_REFUSED[name])
        elif name in config_keys.OFFLOAD:
            yield from _offload(key, value, config_keys.OFFLOAD[name], told)
        elif key in told:
            yield from _differing(key, value, told[key])


def _offload(key: str, block: Any, allowed: Iterable[str], told: Told) -> Iterator[Conflict]:
    if not isinstance(block, Mapping):
        yield _no_object(key, block)
        return
    for name, value in block.items():
        leaf = f"{key}.{name}"
        if leaf in told:
            yield from _differing(leaf, value, told[leaf])
        elif name in config_keys.OFFLOAD_REFUSED:
            yield from _refused(leaf, value, None)
        elif name not in allowed:
            yield _unknown(leaf, value, {f"{key}.{k}" for k in allowed})


def _block(key: str, block: Any, told: Told) -> Iterator[Conflict]:
    """A block that repeats the settings: each leaf must be `auto` or say what they say."""
    if not isinstance(block, Mapping):
        yield _no_object(key, block)
        return
    switch = told.get(f"{key}.enabled")
    # Of a precision block that is off or follows the settings, the rest is without effect.
    if switch and (enabled := block.get("enabled", False)) is not True:
        yield from _differing(f"{key}.enabled", enabled, switch)
        return
    for leaf, value in _leaves(key, block):
        if leaf in told:
            yield from _differing(leaf, value, told[leaf])
        else:
            yield from _refused(leaf, value, config_keys.TOLD_BLOCKS[key])


def _leaves(prefix: str, block: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in block.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{name}", value)
        else:
            yield f"{prefix}.{name}", value


def _differing(key: str, value: Any, setting: Setting) -> Iterator[Conflict]:
    if _is_silent(value) or any(_equal(value, meant) for meant in setting.means):
        return
    leave = f'leave it out or write "{AUTO}"'
    follow = setting.follow(value)
    yield Conflict(
        key,
        value,
        f"differs from {setting.key}",
        f"{leave}; or type  {follow}" if follow else leave,
        setting.key,
        setting.value,
        tuple(_word(meant) for meant in (*setting.means, AUTO)),
    )


def _not_fixed(key: str, value: Any, needed: Any) -> Iterator[Conflict]:
    if not _equal(value, needed):
        word = _word(needed)
        problem = f"must be {word} under this engine"
        yield Conflict(key, value, problem, "leave it out", allowed=(word,))


def _refused(key: str, value: Any, setting: str | None) -> Iterator[Conflict]:
    switch = value.get("enabled") if isinstance(value, Mapping) else value
    if _is_silent(value) or switch is False or value == {}:
        return
    problem = f"is for {setting} to say" if setting else "is not supported by this engine"
    yield Conflict(key, value, problem, "leave it out", setting)


def _unknown(key: str, value: Any, allowed: Iterable[str]) -> Conflict:
    near = difflib.get_close_matches(key, allowed := sorted(allowed), 1, 0.6)
    fix = f"{near[0].rpartition('.')[2]}" if near else "leave it out"
    return Conflict(
        key,
        value,
        "is no key of DeepSpeed that is of use here",
        fix,
        allowed=tuple(allowed) if len(allowed) <= MOST_SHOWN else (),
        did_you_mean=near[0] if near else None,
    )


def _no_object(key: str, value: Any) -> Conflict:
    return Conflict(key, value, "must be an object", f'"{key.rpartition(".")[2]}": {{…}}')


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_silent(value: Any) -> bool:
    return value is None or value == AUTO


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a.casefold() == b.casefold()
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    # In Python True == 1; in JSON it is not.
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


OPTIMIZERS = {"adamw": ("AdamW", "Adam"), "sgd": ("SGD",)}
"""Our optimizers by DeepSpeed's names; its Adam decays weights as AdamW does."""

SCHEDULES = {
    "constant": ("WarmupLR",),
    "linear": ("WarmupDecayLR",),
    "cosine": ("WarmupCosineLR",),
    "cosine-restarts": (),
    "one-cycle": ("OneCycle",),
}
"""Our schedules by DeepSpeed's names."""

ENGINES = {
    (1, False): "zero1",
    (2, False): "zero2",
    (3, False): "zero3",
    (2, True): "zero2-offload",
    (3, True): "zero3-offload",
}
"""Engines by stage and whether the optimizer is kept in host memory."""


class Batching(Protocol):
    """The solved arithmetic of a step."""

    @property
    def global_batch(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def accumulation(self) -> int: ...


def told(
    engine: str, shipped: Mapping[str, Any], batching: Batching, settings: Any
) -> dict[str, Setting]:
    """What the settings say on each key that a DeepSpeed JSON may hold, too.

    `shipped` is the JSON of `engine`, which fixes stage and offload; of `settings` the sections
    `optim` and `schedule` and the value `precision` are read.
    """
    return {
        **_batch(batching),
        **_optimizer(settings.optim),
        "scheduler.type": _named("schedule.name", settings.schedule.name, SCHEDULES),
        **_precision(settings.precision),
        **_layout(engine, shipped["zero_optimization"]),
    }


def _batch(batching: Batching) -> dict[str, Setting]:
    return {
        "train_batch_size": _number("train.global_batch", batching.global_batch),
        "train_micro_batch_size_per_gpu": _number("train.micro_batch", batching.micro_batch),
        # train.accumulation is meant for one process, DeepSpeed's for each of many: no mend.
        "gradient_accumulation_steps": Setting(
            "train.accumulation", batching.accumulation, (batching.accumulation,), _nothing
        ),
    }


def _optimizer(optim: Any) -> dict[str, Setting]:
    params = {
        "lr": _number("optim.lr", optim.lr),
        "weight_decay": _number("optim.weight_decay", optim.weight_decay),
    }
    if optim.name == "adamw":
        params["betas"] = _number("optim.betas", list(optim.betas))
        params["eps"] = _number("optim.eps", optim.eps)
        params["adam_w_mode"] = Setting("optim.name", optim.name, (True,), _nothing)
        params["torch_adam"] = Setting("optim.name", optim.name, (True, False), _nothing)
    else:
        params["momentum"] = _number("optim.momentum", optim.momentum)
    clip = optim.clip_norm
    return {
        "gradient_clipping": Setting("optim.clip_norm", clip, (clip or 0.0,), _clip),
        "optimizer.type": _named("optim.name", optim.name, OPTIMIZERS),
        **{f"optimizer.params.{name}": setting for name, setting in params.items()},
    }


def _precision(precision: str) -> dict[str, Setting]:
    # DeepSpeed's bf16 block is what we call bf16-params: weights in bf16 under an fp32 master. Our
    # own bf16 and fp16 are autocast over fp32 weights, for which DeepSpeed has to run in fp32.
    params = precision == "bf16-params"
    blocks = {"bf16": params, "bfloat16": params, "fp16": False, "torch_autocast": False}

    def follow(block: str) -> Callable[[Any], str | None]:
        if block.startswith("bf"):
            return lambda on: f"--precision {'bf16-params' if on is True else 'bf16'}"
        return _nothing

    return {
        f"{block}.enabled": Setting("precision", precision, (on,), follow(block))
        for block, on in blocks.items()
    }


def _layout(engine: str, zero: Mapping[str, Any]) -> dict[str, Setting]:
    stage = zero["stage"]
    offload = zero.get("offload_optimizer", {}).get("device", "none")
    weights = zero.get("offload_param", {}).get("device", "none")

    def other(stage: Any, offload: bool) -> str | None:
        found = ENGINES.get((stage, offload)) if isinstance(stage, int) else None
        return f"--engine {found}" if found and found != engine else None

    return {
        "zero_optimization.stage": Setting(
            "engine.name", engine, (stage,), lambda to: other(to, offload == "cpu")
        ),
        "zero_optimization.offload_optimizer.device": Setting(
            "engine.name", engine, (offload,), lambda to: other(stage, to == "cpu")
        ),
        # An engine that keeps its weights in host memory may be told to leave them on the device.
        "zero_optimization.offload_param.device": Setting(
            "engine.name",
            engine,
            (weights,) if weights == "none" else (weights, "none"),
            lambda to: other(3, True) if to == "cpu" else None,
        ),
    }


def _number(key: str, value: Any) -> Setting:
    return Setting(key, value, (value,), lambda to: None if _odd(to) else _set(key, to))


def _clip(value: Any) -> str | None:
    return None if _odd(value) else _set("optim.clip_norm", value or None)


def _odd(value: Any) -> bool:
    return isinstance(value, (bool, str, Mapping))


def _set(key: str, value: Any) -> str:
    return "--set " + shlex.quote(f"{key}={json.dumps(value)}")


def _named(key: str, value: str, names: Mapping[str, tuple[str, ...]]) -> Setting:
    ours = {theirs.casefold(): name for name, all_ in names.items() for theirs in all_}

    def follow(to: Any) -> str | None:
        found = ours.get(str(to).casefold())
        return f"--set {key}={found}" if found else None

    return Setting(key, value, names[value], follow)


def _nothing(_: Any) -> None:
    return None
