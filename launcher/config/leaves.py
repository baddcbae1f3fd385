"""What is known of each setting: type, default, legal values, range, unit, and its sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from engines.catalog import ENGINES
from launcher.base.diagnostics import plain
from launcher.config import presets
from launcher.config.schema import config_of, settings_class
from models.catalog import FAMILIES
from training import duration


@dataclass(frozen=True)
class SettingInfo:
    """What is known of one setting."""

    key: str
    type: str
    """In words: `whole number`, `number`, `text`, `one of`, `true or false`, `length`, ..."""
    default: Any
    allowed: tuple[str, ...] | str | None
    """The options one by one, or the forms in words; None where only type and range bind."""
    range: str | None
    """`at least 1`, `above 0, below 1`."""
    unit: str | None
    description: str
    nullable: bool
    only_if: Mapping[str, list[Any]] = field(default_factory=dict)
    """Means nothing unless each of these settings has one of the values."""
    unless: Mapping[str, list[Any]] = field(default_factory=dict)
    """Means nothing where one of these settings has one of the values."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    items: Mapping[str, SettingInfo] = field(default_factory=dict)
    """What is known of each key of its mappings, where it is a list of them."""


@cache
def setting_infos(family: str) -> dict[str, SettingInfo]:
    """Every setting of a family by its dotted key, in the order of declaration."""
    named = {
        "mode": presets.modes(),
        "engine.name": tuple(ENGINES),
        "model.family": tuple(dict.fromkeys((*FAMILIES, family))),
        "model.size": tuple(config_of(family).SIZES),
    }
    return {
        leaf.key: replace(leaf, type="one of", allowed=named[leaf.key])
        if leaf.key in named
        else leaf
        for leaf in _leaves(settings_class(family), "")
    }


@cache
def sections(family: str) -> frozenset[str]:
    """The dotted keys that hold other keys."""
    return frozenset(
        key[:at] for key in setting_infos(family) for at in range(len(key)) if key[at] == "."
    )


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[SettingInfo]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        # In Python 3.10 list[float] passes for a class.
        if isinstance(kind, type) and not get_args(kind) and issubclass(kind, BaseModel):
            yield from _leaves(kind, f"{prefix}{name}.")
        else:
            yield _leaf(prefix + (info.alias or name), info)


def _leaf(key: str, info: FieldInfo) -> SettingInfo:
    extra = _extra(info)
    options, nullable = _options(info.annotation)
    bounds = _bounds(info)
    allowed: Any = options if isinstance(options, tuple) else extra.get("allowed")
    if options == "length":
        allowed = duration.LEGAL
    return SettingInfo(
        key=key,
        type="one of" if isinstance(allowed, tuple) else str(options),
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        allowed=allowed,
        range=_range(bounds),
        unit=extra.get("unit") or ("seconds" if key.endswith("_s") else None),
        description=info.description or "",
        nullable=nullable,
        only_if=extra.get("only_if", {}),
        unless=extra.get("unless", {}),
        bounds=bounds,
        items=_items(info.annotation),
    )


def _extra(info: FieldInfo) -> dict[str, Any]:
    """What stands in json_schema_extra of a field, and of the types it is made of."""
    within = [item for part in get_args(info.annotation) for item in get_args(part)[1:]]
    extra: dict[str, Any] = {}
    for one in (*within, info):
        if isinstance(one, FieldInfo) and isinstance(one.json_schema_extra, dict):
            extra |= one.json_schema_extra
    return extra


def _options(annotation: Any) -> tuple[tuple[str, ...] | str, bool]:
    """The options of a choice, or the type in words; and whether none is allowed."""
    parts = [annotation]
    if get_origin(annotation) in (Union, UnionType):
        parts = list(get_args(annotation))
    kinds = [_bare(part) for part in parts if part is not NoneType]
    nullable = NoneType in parts
    flat = [kind for part in kinds for kind in (get_args(part) if _is_union(part) else (part,))]
    if len(flat) == 1 and get_origin(flat[0]) is Literal:
        return tuple(get_args(flat[0])), nullable
    if set(flat) == {int, str}:
        return "length", nullable
    if len(flat) == 1 and get_origin(flat[0]) is list:
        return f"list of {_WORDS.get(_bare(get_args(flat[0])[0]), 'mapping')}s", nullable
    return _WORDS.get(flat[0], "mapping"), nullable


_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _items(annotation: Any) -> dict[str, SettingInfo]:
    kind = _bare(get_args(annotation)[0]) if get_origin(annotation) is list else None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return {leaf.key: leaf for leaf in _leaves(kind, "")}
    return {}


def _bounds(info: FieldInfo) -> dict[str, float]:
    return {
        name: getattr(item, name)
        for item in info.metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(item, name, None) is not None
    }


def _range(bounds: Mapping[str, float]) -> str | None:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    told = [f"{words[name]} {plain(bound)}" for name, bound in bounds.items()]
    return ", ".join(told) or None
