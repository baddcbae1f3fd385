"""What the class of a custom task declares: its settings, sizes, stages and defaults."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import presets
from launcher.config.custom_task import KEY, class_location, load_task_class, task_folder
from launcher.config.presets import FamilyFile
from launcher.config.settings_file import MAPPINGS, Line
from models.catalog import Stage
from models.common.config import Fold, SplitSeed

_STAGES = "stage_settings"
_OURS = ("family", "size", "folder")
"""The settings that every task has in its section `model`."""
_PLAIN = (bool, int, float, str, type(None))
_SPLIT: dict[str, Any] = {"split_seed": (SplitSeed, None), "fold": (Fold, None)}
"""Settings of the data that a task reads with CustomTask.split_groups, unless it declares its own
of that name."""


class Nothing(BaseModel):
    """No setting of its own."""


@dataclass(frozen=True)
class Declared:
    """What the config module of a family holds, see models.catalog.Family, and its file and stages."""

    Model: type[BaseModel]
    Data: type[BaseModel]
    SIZES: Mapping[str, Any]
    """No size has a number of parameters that is known before it is built."""
    file: FamilyFile
    """`defaults`, `sizes` and stages of the class, above the defaults of all custom tasks."""
    stages: tuple[Stage, ...]


@cache
def declared(name: str) -> Declared:
    """What the class of the task `name` declares. Imports its module. Raises SettingsError."""
    cls = load_task_class(name)
    sizes, folder = dict.fromkeys(_mapping(cls, "sizes")), task_folder(name)
    head: dict[str, tuple[Any, str | None, str]] = {
        "family": (str, name, "The task: package.module:Class."),
        "folder": (str | None, folder, "Folder of the task's module; null: installed."),
    }
    if sizes:
        head["size"] = (str, next(iter(sizes)), "The size, of those that the task declares.")
    fields = {key: (kind, Field(default=value, description=d)) for key, (kind, value, d) in head.items()}
    model, data = _section(cls, "Model", fields), _section(cls, "Data", _SPLIT)
    lines = [*presets.custom_task().lines]
    for attribute, block in (("defaults", "declared."), ("sizes", "sizes."), (_STAGES, "stages.")):
        lines += _lines(cls, attribute, block)
    stages = tuple(getattr(cls, "stages", ()))
    names = {stage.name for stage in stages if isinstance(stage, Stage)}
    parts = (("model", model), ("data", data))
    keys = [None, *(f"{part}.{key}" for part, section in parts for key in section.model_fields)]
    wrong = [f"{cls.__name__}.stages is not understood"] if len(names) < len(stages) else []
    lost = [stage for stage in stages if not wrong and stage.loads not in keys]
    wrong += [f"stage {stage.name} loads {stage.loads}, which is not a setting" for stage in lost]
    wrong += [f"'{other}' of {_STAGES} is no stage" for other in _mapping(cls, _STAGES) if other not in names]
    if wrong:
        raise _errors(cls, wrong, "each a models.catalog.Stage of another name, which loads a setting")
    return Declared(model, data, sizes, FamilyFile(lines), stages)


def _section(cls: type, name: str, head: dict[str, Any]) -> type[BaseModel]:
    """The class of settings within a task, frozen, refusing other keys, after the fields of `head`.

    Raises SettingsError if it is invalid.
    """
    section = getattr(cls, name, Nothing)
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        raise _errors(cls, [f"{cls.__name__}.{name} is not a pydantic BaseModel"], "a BaseModel")
    if wrong := list(_undeclarable(section, name)):
        allowed = "true or false, numbers, texts, lists of them, and classes of such fields"
        raise _errors(section, wrong, allowed)
    try:
        create_model(name, __base__=section, __cls_kwargs__={"validate_default": True})()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        raise _errors(section, [f"the default of {cls.__name__}.{key} is invalid: {first['msg']}"]) from None
    closed = {"extra": "forbid", "frozen": True}
    return create_model(name, __base__=(section, create_model("Head", **head)), __cls_kwargs__=closed)


def _undeclarable(section: type[BaseModel], name: str) -> Iterator[str]:
    """What is wrong with the fields of a section."""
    for key, info in section.model_fields.items():
        kind = info.annotation
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        if name == "Model" and key in _OURS:
            yield f"{name}.{key} cannot be a setting of its own: every task has one of that name"
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _undeclarable(kind, f"{name}.{key}")
        elif info.is_required():
            yield f"{name}.{key} has no default"
        elif not _is_plain(default):
            yield f"{name}.{key} cannot be written into a settings file"


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in _PLAIN


def _mapping(cls: type, name: str) -> Mapping[str, Any]:
    """A mapping of the class, for example `defaults`. Raises SettingsError if it is not one."""
    mapping = getattr(cls, name, {})
    is_by_name = name != "defaults"
    inner = mapping.values() if isinstance(mapping, Mapping) and is_by_name else ()
    mappings = (mapping, *inner)
    is_valid = all(isinstance(item, Mapping) for item in mappings)
    if not is_valid or not all(isinstance(key, str) and key for item in mappings for key in item):
        example = '{"small": {"model.width": 8}}' if is_by_name else '{"optim": {"lr": 1e-3}}'
        raise _errors(cls, [f"{cls.__name__}.{name} is not understood"], f"settings by key, as {example}")
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
            value = list(value) if isinstance(value, tuple) else value
            yield Line(f"{block}{key}", value, where)

    return lines(_mapping(cls, name), "")


def _errors(cls: type, messages: Sequence[str], allowed: str | None = None) -> SettingsError:
    where = class_location(cls)
    return SettingsError([Diagnostic(text, key=KEY, where=where, allowed=allowed) for text in messages])
