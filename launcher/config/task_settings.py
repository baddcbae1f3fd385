"""What the class of a custom task declares: its settings, sizes, stages and defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from launcher.base.diagnostics import SettingsError
from launcher.config import presets
from launcher.config.custom_task import KEY, class_location, load_task_class, task_folder
from launcher.config.presets import FamilyFile
from launcher.config.settings_file import MAPPINGS, Line
from models.catalog import Stage
from models.common.config import Fold, SplitSeed
from training.settings import flat

_OURS = ("family", "size", "folder")
"""The settings that every task has in its section `model`."""
_PLAIN = (bool, int, float, str, type(None))
_SPLIT: dict[str, Any] = {"split_seed": (SplitSeed, None), "fold": (Fold, None)}
"""Settings of the data that a task reads with CustomTask.split_groups, unless it declares its own
of that name."""
_FIELDS = "true or false, numbers, texts, lists of them, and classes of such fields"


class Nothing(BaseModel):
    """No setting of its own."""


@dataclass(frozen=True, eq=False)
class Declared:
    """What the config module of a family holds, see models.catalog.Family, and its file and stages."""

    Model: type[BaseModel]
    Data: type[BaseModel]
    SIZES: Mapping[str, Any]
    """No size has a number of parameters that is known before it is built."""
    file: FamilyFile
    """`defaults`, `sizes` and stages of the class, above the defaults of all custom tasks."""
    stages: tuple[Stage, ...]


def declared(name: str) -> Declared:
    """What the class of the task `name` declares. Imports its module. Raises SettingsError."""
    return _declared(load_task_class(name), name)


@cache
def _declared(cls: type, name: str) -> Declared:
    sizes, folder = dict.fromkeys(_mapping(cls, "sizes")), task_folder(name)
    head: dict[str, Any] = {
        "family": (str, Field(name, description="The task: package.module:Class.")),
        "folder": (str | None, Field(folder, description="Folder of the task's module; null: installed.")),
    }
    if sizes:
        size = Field(next(iter(sizes)), description="The size, of those that the task declares.")
        head["size"] = (str, size)
    model, data = _section(cls, "Model", head), _section(cls, "Data", _SPLIT)
    lines = [*presets.file("custom_task").lines]
    for attribute, block in (("defaults", "declared."), ("sizes", "sizes."), ("stage_settings", "stages.")):
        lines += _lines(cls, attribute, block)
    stages = tuple(getattr(cls, "stages", ()))
    names = [stage.name if isinstance(stage, Stage) else None for stage in stages]
    parts = (("model", model), ("data", data))
    keys = {None, *(f"{part}.{key}" for part, section in parts for key in section.model_fields)}
    is_named = None not in names and len({*names}) == len(names)
    is_known = is_named and keys.issuperset(stage.loads for stage in stages)
    if not is_known or not {*_mapping(cls, "stage_settings")} <= {*names}:
        allowed = "each a models.catalog.Stage of another name, which loads a setting"
        message = f"{cls.__name__}.stages, with stage_settings by their names, is not understood"
        raise _error(cls, message, allowed)
    return Declared(model, data, sizes, FamilyFile(lines), stages)


def _section(cls: type, name: str, head: dict[str, Any]) -> type[BaseModel]:
    """The class of settings within a task, frozen, refusing other keys, after the fields of `head`.

    Raises SettingsError if it is invalid.
    """
    section = getattr(cls, name, Nothing)
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        raise _error(cls, f"{cls.__name__}.{name} is not a pydantic BaseModel", "a BaseModel")
    if taken := [key for key in _OURS if name == "Model" and key in section.model_fields]:
        raise _error(section, f"{name}.{taken[0]} is a setting of every task, not one of its own", _FIELDS)
    try:
        defaults = create_model(name, __base__=section, __cls_kwargs__={"validate_default": True})()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        message = f"{cls.__name__}.{key} has no valid default: {first['msg']}"
        raise _error(section, message, _FIELDS) from None
    if wrong := [key for key, value in flat(defaults.model_dump()).items() if not _is_plain(value)]:
        raise _error(section, f"{name}.{wrong[0]} cannot be written into a settings file", _FIELDS)
    closed = {"extra": "forbid", "frozen": True}
    return create_model(name, __base__=(section, create_model("Head", **head)), __cls_kwargs__=closed)


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in _PLAIN


def _mapping(cls: type, name: str) -> Mapping[str, Any]:
    """A mapping of the class, for example `defaults`. Raises SettingsError if it is not one."""
    mapping, is_by_name = getattr(cls, name, {}), name != "defaults"
    parts = [mapping, *(mapping.values() if isinstance(mapping, Mapping) and is_by_name else ())]
    if not all(isinstance(m, Mapping) and all(isinstance(key, str) and key for key in m) for m in parts):
        example = '{"small": {"model.width": 8}}' if is_by_name else '{"optim": {"lr": 1e-3}}'
        raise _error(cls, f"{cls.__name__}.{name} is not understood", f"settings by key, as {example}")
    return mapping


def _lines(cls: type, name: str, block: str) -> Iterator[Line]:
    """The settings in a mapping of the class, as those of a `block` of a family's file."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), cls)
    place, _, line = class_location(owner).rpartition(":")
    where = f"{place}:{line}" if line.isdigit() else f"{line}:1"
    if line.isdigit():
        texts = enumerate(inspect.getsourcelines(owner)[0], int(line))
        where = next((f"{place}:{n}" for n, text in texts if re.match(rf"\s+{name}\s*[:=]", text)), where)

    def lines(value: Any, key: str) -> Iterator[Line]:
        if isinstance(value, Mapping) and not key.endswith(MAPPINGS):
            for inner, child in value.items():
                yield from lines(child, f"{key}.{inner}" if key else inner)
        else:
            yield Line(f"{block}{key}", list(value) if isinstance(value, tuple) else value, where)

    return lines(_mapping(cls, name), "")


def _error(cls: type, message: str, allowed: str | None = None) -> SettingsError:
    return SettingsError.of(message, key=KEY, where=class_location(cls), allowed=allowed)
