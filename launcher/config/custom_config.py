"""The settings, sizes and defaults that a task of the person's own declares in its class."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, create_model

from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import custom_task, presets
from launcher.config.nodes import Node
from launcher.config.presets import Block, FamilyFile
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
    cls = custom_task.load_task_class(name)
    sizes = tuple(_mapping(cls, "sizes"))
    named = Annotated[str, Field(description="The task: package.module:Class.")]
    folder = Annotated[
        str | None,
        Field(description="Where the task's module lies; null: among what is installed."),
    ]
    head: dict[str, Any] = {
        "family": (named, name),
        "folder": (folder, custom_task.task_folder(name)),
    }
    if sizes:
        of_class = Annotated[str, Field(description="The size, of those that the task declares.")]
        head["size"] = (of_class, sizes[0])
    return Config(
        Model=_closed("Model", _declared(cls, "Model", _OURS), head),
        Data=_closed("Data", _declared(cls, "Data", ()), {}),
        SIZES=dict.fromkeys(sizes),
    )


@cache
def task_family_file(name: str) -> FamilyFile:
    """What stands in the place of the YAML of a family: `defaults` and `sizes` of the class.

    Beneath them lies what holds for every task of one's own. Raises SettingsError.
    """
    cls = custom_task.load_task_class(name)
    return replace(
        presets.own(),
        sizes={size: _block(cls, "sizes", size) for size in _mapping(cls, "sizes")},
        stages={stage: _block(cls, _STAGES, stage) for stage in _mapping(cls, _STAGES)},
        declared=_block(cls, "defaults"),
    )


@cache
def task_stages(name: str) -> tuple[Stage, ...]:
    """The stages that the task `name` declares. Imports its module. Raises SettingsError."""
    cls = custom_task.load_task_class(name)
    found = tuple(getattr(cls, "stages", ()))
    named = [one.name for one in found if isinstance(one, Stage)]
    if len(set(named)) < len(found):
        allowed = "each a models.catalog.Stage of another name"
        raise _fault(cls, f"{cls.__name__}.stages is not understood", allowed=allowed)
    model, data = task_config(name).Model.model_fields, task_config(name).Data.model_fields
    known = [*(f"model.{key}" for key in model), *(f"data.{key}" for key in data)]
    diagnostics = [
        _told(cls, f"stage {one.name} loads {one.loads}, which is no setting", ", ".join(known))
        for one in found
        if one.loads not in (None, *known)
    ]
    diagnostics += [
        _told(
            cls,
            f"{cls.__name__}.{_STAGES} has settings of '{other}', which is no stage",
            ", ".join(named),
        )
        for other in _mapping(cls, _STAGES)
        if other not in named
    ]
    if diagnostics:
        raise SettingsError(diagnostics)
    return found


def _declared(cls: type, name: str, ours: tuple[str, ...]) -> type[BaseModel]:
    """The class of settings within a task. Raises SettingsError where it cannot be used."""
    found = getattr(cls, name, Nothing)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise _fault(cls, f"{cls.__name__}.{name} is no pydantic BaseModel", allowed="a BaseModel")
    diagnostics = [
        f for key, info in found.model_fields.items() for f in _wrong(f"{name}.{key}", info, ours)
    ]
    if diagnostics:
        raise SettingsError([_told(found, what, _LEGAL) for what in diagnostics])
    try:
        found()
    except ValidationError as error:
        what = f"the defaults of {cls.__name__}.{name} are not what it allows: "
        raise _fault(found, what + error.errors()[0]["msg"]) from None
    return found


def _wrong(name: str, info: Any, ours: tuple[str, ...]) -> Iterator[str]:
    """What keeps a field from being a setting."""
    kind = info.annotation
    if name.partition(".")[2] in ours:
        yield f"{name} cannot be a setting of its own: every task has one of that name"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for key, inner in kind.model_fields.items():
            yield from _wrong(f"{name}.{key}", inner, ())
    elif info.is_required():
        yield f"{name} has no default"
    elif not _is_plain(info.get_default(call_default_factory=True)):
        yield f"{name} cannot be written into a settings file"


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in _PLAIN


def _closed(name: str, declared: type[BaseModel], head: dict[str, Any]) -> type[BaseModel]:
    """`declared` with the fields of `head` before its own, frozen, refusing other keys."""
    first = create_model("Head", **head)
    made: type[BaseModel] = create_model(
        name,
        __base__=(declared, first),
        __cls_kwargs__={"extra": "forbid", "frozen": True},
    )
    return made


def _mapping(cls: type, name: str) -> Mapping[str, Any]:
    """A mapping of the class, such as `defaults`. Raises SettingsError where it is none."""
    found = getattr(cls, name, {})
    by_name = name in _BY_NAME
    inner = found.values() if isinstance(found, Mapping) and by_name else [{}]
    if not all(isinstance(one, Mapping) and all(map(_is_key, one)) for one in (found, *inner)):
        allowed = 'settings by their keys, such as {"optim": {"lr": 1e-3}}'
        if by_name:
            allowed = (
                f'the settings of each {_BY_NAME[name]}, such as {{"small": {{"model.width": 8}}}}'
            )
        raise _fault(cls, f"{cls.__name__}.{name} is not understood", allowed=allowed)
    return found


def _is_key(key: object) -> bool:
    return isinstance(key, str) and bool(key)


def _block(cls: type, name: str, *keys: str) -> Block:
    """A mapping of the class, with the lines on which its values stand."""
    value: Any = _mapping(cls, name)
    source, tree, line = _source(cls, name)
    for key in keys:
        value, tree, line = value[key], *_inner(tree, key, line)
    return Block(_node(value, tree, line), source)


def _node(value: Any, tree: ast.expr | None, line: int) -> Node:
    if isinstance(value, Mapping):
        inner = {key: _node(child, *_inner(tree, key, line)) for key, child in value.items()}
        return Node(inner, line)
    if isinstance(value, list | tuple):
        return Node([_node(item, None, line) for item in value], line)
    return Node(value, line)


def _inner(tree: ast.expr | None, key: str, line: int) -> tuple[ast.expr | None, int]:
    """What stands behind `key` in a literal, and on which line; as far as it is one."""
    if isinstance(tree, ast.Dict):
        for written, behind in zip(tree.keys, tree.values, strict=True):
            if isinstance(written, ast.Constant) and written.value == key:
                return behind, written.lineno
    return None, line


def _source(cls: type, name: str) -> tuple[str, ast.expr | None, int]:
    """The file that gives the class its attribute `name`, the expression there, and its line."""
    owner = next((one for one in cls.__mro__ if name in vars(one)), cls)
    place = custom_task.class_location(owner)
    file, _, line = place.rpartition(":")
    try:
        tree = ast.parse(Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        return place, None, 1
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            for statement in node.body:
                if _assigns(statement, name) and isinstance(statement, ast.Assign | ast.AnnAssign):
                    return file, statement.value, statement.lineno
    return file, None, int(line)


def _assigns(statement: ast.stmt, name: str) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return any(isinstance(target, ast.Name) and target.id == name for target in targets)


def _fault(cls: type, what: str, allowed: str | None = None) -> SettingsError:
    return SettingsError([_told(cls, what, allowed)])


def _told(cls: type, what: str, allowed: str | None) -> Diagnostic:
    return Diagnostic(
        what, key=custom_task.KEY, where=custom_task.class_location(cls), allowed=allowed
    )
