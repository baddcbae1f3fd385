"""The settings, sizes and stages that the class of a custom task declares."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import presets
from launcher.config.custom_task import KEY, class_location, load_task_class, task_folder
from launcher.config.presets import FamilyFile, SettingsBlock
from launcher.config.settings_file import Node
from models.catalog import Stage

_OURS = ("family", "size", "folder")
_STAGES = "stage_settings"
_BY_NAME = {"sizes": "size", _STAGES: "stage"}
"""What of a class has settings by a name, and what that names."""
_PLAIN = (bool, int, float, str, type(None))
_LEGAL = "true or false, numbers, texts, lists of them, and classes of such fields"


@dataclass(frozen=True)
class Config:
    """What the config module of a family holds; see models.catalog.Family."""

    Model: type[BaseModel]
    Data: type[BaseModel]
    SIZES: Mapping[str, Any]
    """No size has a number of parameters that is known before it is built."""


class Nothing(BaseModel):
    """No setting of its own."""


@cache
def task_config(name: str) -> Config:
    """The settings of the task `name`, checked. Imports its module. Raises SettingsError."""
    cls = load_task_class(name)
    sizes = tuple(_mapping(cls, "sizes"))
    folder = "Folder of the task's module; null: installed."
    head: dict[str, Any] = {
        "family": (str, Field(default=name, description="The task: package.module:Class.")),
        "folder": (str | None, Field(default=task_folder(name), description=folder)),
    }
    if sizes:
        size = "The size, of those that the task declares."
        head["size"] = (str, Field(default=sizes[0], description=size))
    return Config(
        Model=_closed("Model", _declared(cls, "Model", _OURS), head),
        Data=_closed("Data", _declared(cls, "Data", ()), {}),
        SIZES=dict.fromkeys(sizes),
    )


@cache
def task_family_file(name: str) -> FamilyFile:
    """`defaults`, `sizes` and stages of the class, above the defaults of all custom tasks.

    Raises SettingsError.
    """
    cls = load_task_class(name)
    return replace(
        presets.custom_task(),
        sizes={size: _block(cls, "sizes", size) for size in _mapping(cls, "sizes")},
        stages={stage: _block(cls, _STAGES, stage) for stage in _mapping(cls, _STAGES)},
        declared=_block(cls, "defaults"),
    )


@cache
def task_stages(name: str) -> tuple[Stage, ...]:
    """The stages that the task `name` declares. Imports its module. Raises SettingsError."""
    cls = load_task_class(name)
    stages = tuple(getattr(cls, "stages", ()))
    named = [stage.name for stage in stages if isinstance(stage, Stage)]
    if len(set(named)) < len(stages):
        allowed = "each a models.catalog.Stage of another name"
        what = f"{cls.__name__}.stages is not understood"
        raise SettingsError([_diagnostic(cls, what, allowed)])
    model, data = task_config(name).Model.model_fields, task_config(name).Data.model_fields
    known = [*(f"model.{key}" for key in model), *(f"data.{key}" for key in data)]
    diagnostics = []
    for stage in stages:
        if stage.loads not in (None, *known):
            what = f"stage {stage.name} loads {stage.loads}, which is not a setting"
            diagnostics.append(_diagnostic(cls, what, ", ".join(known)))
    for other in _mapping(cls, _STAGES):
        if other not in named:
            what = f"{cls.__name__}.{_STAGES} has settings of '{other}', which is not a stage"
            diagnostics.append(_diagnostic(cls, what, ", ".join(named)))
    if diagnostics:
        raise SettingsError(diagnostics)
    return stages


def _declared(cls: type, name: str, ours: tuple[str, ...]) -> type[BaseModel]:
    """The class of settings within a task. Raises SettingsError if it is invalid."""
    section_class = getattr(cls, name, Nothing)
    if not (isinstance(section_class, type) and issubclass(section_class, BaseModel)):
        what = f"{cls.__name__}.{name} is not a pydantic BaseModel"
        raise SettingsError([_diagnostic(cls, what, "a BaseModel")])
    diagnostics = [
        _diagnostic(section_class, what, _LEGAL)
        for key, info in section_class.model_fields.items()
        for what in _invalid_fields(f"{name}.{key}", info, ours)
    ]
    if diagnostics:
        raise SettingsError(diagnostics)
    try:
        create_model(name, __base__=section_class, __cls_kwargs__={"validate_default": True})()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        what = f"the default of {cls.__name__}.{key} is invalid: {first['msg']}"
        raise SettingsError([_diagnostic(section_class, what)]) from None
    return section_class


def _invalid_fields(name: str, info: Any, ours: tuple[str, ...]) -> Iterator[str]:
    kind = info.annotation
    if name.partition(".")[2] in ours:
        yield f"{name} cannot be a setting of its own: every task has one of that name"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for key, inner in kind.model_fields.items():
            yield from _invalid_fields(f"{name}.{key}", inner, ())
    elif info.is_required():
        yield f"{name} has no default"
    elif not _is_plain(info.get_default(call_default_factory=True)):
        yield f"{name} cannot be written into a settings file"


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in _PLAIN


def _closed(name: str, declared: type[BaseModel], head: dict[str, Any]) -> type[BaseModel]:
    """`declared` with the fields of `head` before its own, frozen, refusing other keys."""
    first = create_model("Head", **head)
    closed = {"extra": "forbid", "frozen": True}
    return create_model(name, __base__=(declared, first), __cls_kwargs__=closed)


def _mapping(cls: type, name: str) -> Mapping[str, Any]:
    """A mapping of the class, for example `defaults`. Raises SettingsError if it is not one."""
    mapping = getattr(cls, name, {})
    by_name = name in _BY_NAME
    inner = mapping.values() if isinstance(mapping, Mapping) and by_name else [{}]
    mappings = (mapping, *inner)
    is_valid = all(isinstance(item, Mapping) for item in mappings)
    if not is_valid or not all(isinstance(key, str) and key for item in mappings for key in item):
        allowed = 'settings by key, for example {"optim": {"lr": 1e-3}}'
        if by_name:
            allowed = f'settings of each {_BY_NAME[name]}, as {{"small": {{"model.width": 8}}}}'
        what = f"{cls.__name__}.{name} is not understood"
        raise SettingsError([_diagnostic(cls, what, allowed)])
    return mapping


def _block(cls: type, name: str, *keys: str) -> SettingsBlock:
    """A mapping of the class, with the lines of its values."""
    value: Any = _mapping(cls, name)
    source, tree, line = _source(cls, name)
    for key in keys:
        value, tree, line = value[key], *_inner(tree, key, line)
    return SettingsBlock(_node(value, tree, line), source)


def _node(value: Any, tree: ast.expr | None, line: int) -> Node:
    if isinstance(value, Mapping):
        inner = {key: _node(child, *_inner(tree, key, line)) for key, child in value.items()}
        return Node(inner, line)
    if isinstance(value, list | tuple):
        return Node([_node(item, None, line) for item in value], line)
    return Node(value, line)


def _inner(tree: ast.expr | None, key: str, line: int) -> tuple[ast.expr | None, int]:
    """The value of `key` in a dict literal, and its line."""
    if isinstance(tree, ast.Dict):
        for written, behind in zip(tree.keys, tree.values, strict=True):
            if isinstance(written, ast.Constant) and written.value == key:
                return behind, written.lineno
    return None, line


def _source(cls: type, name: str) -> tuple[str, ast.expr | None, int]:
    """The file that gives the class its attribute `name`, the expression there, and its line."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), cls)
    location = class_location(owner)
    file, _, line = location.rpartition(":")
    try:
        tree = ast.parse(Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        return location, None, 1
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            for statement in node.body:
                if isinstance(statement, ast.Assign | ast.AnnAssign):
                    targets = (
                        statement.targets
                        if isinstance(statement, ast.Assign)
                        else [statement.target]
                    )
                    if name in (getattr(target, "id", None) for target in targets):
                        return file, statement.value, statement.lineno
    return (file, None, int(line)) if line.isdigit() else (location, None, 1)


def _diagnostic(cls: type, what: str, allowed: str | None = None) -> Diagnostic:
    return Diagnostic(what, key=KEY, where=class_location(cls), allowed=allowed)
