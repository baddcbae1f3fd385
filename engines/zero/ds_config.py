"""A person's DeepSpeed JSON beside the settings: where they differ, and what both give."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engines.zero import ds_keys

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
    return _over(shipped, _said({k: v for k, v in own.items() if k in ds_keys.FREE}))


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
    allowed = {*ds_keys.FREE, *ds_keys.TOLD_BLOCKS, *ds_keys.TOLD_VALUES, *ds_keys.FIXED}
    if key not in allowed and key not in ds_keys.REFUSED:
        yield _unknown(key, value, allowed)
    elif _is_silent(value):
        return
    elif key in ds_keys.REFUSED:
        yield from _refused(key, value, ds_keys.REFUSED[key])
    elif key == "zero_optimization":
        yield from _zero(value, told)
    elif key in ds_keys.TOLD_BLOCKS:
        yield from _block(key, value, told)
    elif key in ds_keys.TOLD_VALUES:
        yield from _differing(key, value, told[key])
    elif key in ds_keys.FIXED:
        yield from _not_fixed(key, value, ds_keys.FIXED[key])


def _zero(block: Any, told: Told) -> Iterator[Conflict]:
    if not isinstance(block, Mapping):
        yield _no_object("zero_optimization", block)
        return
    for name, value in block.items():
        key = f"zero_optimization.{name}"
        if name not in {*ds_keys.ZERO, *ds_keys.ZERO_FIXED, *ds_keys.ZERO_REFUSED}:
            yield _unknown(key, value, {f"zero_optimization.{k}" for k in ds_keys.ZERO})
        elif _is_silent(value):
            continue
        elif name in ds_keys.ZERO_FIXED:
            yield from _not_fixed(key, value, ds_keys.ZERO_FIXED[name])
        elif name in ds_keys.ZERO_REFUSED:
            yield from _refused(key, value, ds_keys.ZERO_REFUSED[name])
        elif name in ds_keys.OFFLOAD:
            yield from _offload(key, value, ds_keys.OFFLOAD[name], told)
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
        elif name in ds_keys.OFFLOAD_REFUSED:
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
            yield from _refused(leaf, value, ds_keys.TOLD_BLOCKS[key])


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
    fix = f"write  {near[0].rpartition('.')[2]}" if near else "leave it out"
    return Conflict(
        key,
        value,
        "is no key of DeepSpeed that is of use here",
        fix,
        allowed=tuple(allowed) if len(allowed) <= MOST_SHOWN else (),
        did_you_mean=near[0] if near else None,
    )


def _no_object(key: str, value: Any) -> Conflict:
    return Conflict(key, value, "must be an object", f'write  "{key.rpartition(".")[2]}": {{…}}')


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
