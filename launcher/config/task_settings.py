"""The settings, sizes and stages that the class of a custom task declares."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
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


_SPLIT: dict[str, Any] = {"split_seed": (SplitSeed, None), "fold": (Fold, None)}
"""Settings of the data that a task reads with CustomTask.split_groups, unless it declares its own
of that name."""


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
        Model=_section(cls, "Model", ("family", "size", "folder"), head),
        Data=_section(cls, "Data", (), _SPLIT),
        SIZES=dict.fromkeys(sizes),
    )


@cache
def task_family_file(name: str) -> FamilyFile:
    """`defaults`, `sizes` and stages of the class, above the defaults of all custom tasks.

    Raises SettingsError.
    """
    cls = load_task_class(name)
    lines = [*presets.custom_task().lines, *_lines(cls, "defaults", "declared.")]
    for attribute, block in (("sizes", "sizes."), (_STAGES, "stages.")):
        lines += _lines(cls, attribute, block)
    return FamilyFile(lines)


@cache
def task_stages(name: str) -> tuple[Stage, ...]:
    """The stages that the task `name` declares. Imports its module. Raises SettingsError."""
    cls = load_task_class(name)
    stages = tuple(getattr(cls, "stages", ()))
    named = [stage.name for stage in stages if isinstance(stage, Stage)]
    if len(set(named)) < len(stages):
        what = f"{cls.__name__}.stages is not understood"
        raise _errors(cls, [what], "each a models.catalog.Stage of another name")
    config = task_config(name)
    sections = (("model", config.Model), ("data", config.Data))
    known = [f"{part}.{key}" for part, section in sections for key in section.model_fields]
    wrong = [stage for stage in stages if stage.loads not in (None, *known)]
    if wrong:
        whats = [f"stage {s.name} loads {s.loads}, which is not a setting" for s in wrong]
        raise _errors(cls, whats, ", ".join(known))
    if unknown := [other for other in _mapping(cls, _STAGES) if other not in named]:
        what = f"{cls.__name__}.{_STAGES} has settings of"
        whats = [f"{what} '{other}', which is not a stage" for other in unknown]
        raise _errors(cls, whats, ", ".join(named))
    return stages


def _section(cls: type, name: str, ours: tuple[str, ...], head: dict[str, Any]) -> type[BaseModel]:
    """The class of settings within a task, frozen, refusing other keys, after the fields of `head`.

    Raises SettingsError if it is invalid.
    """
    declared = getattr(cls, name, Nothing)
    if not (isinstance(declared, type) and issubclass(declared, BaseModel)):
        raise _errors(cls, [f"{cls.__name__}.{name} is not a pydantic BaseModel"], "a BaseModel")
    fields = declared.model_fields.items()
    if whats := [what for key, info in fields for what in _faults(f"{name}.{key}", info, ours)]:
        raise _errors(declared, whats, _LEGAL)
    try:
        create_model(name, __base__=declared, __cls_kwargs__={"validate_default": True})()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        what = f"the default of {cls.__name__}.{key} is invalid: {first['msg']}"
        raise _errors(declared, [what]) from None
    closed = {"extra": "forbid", "frozen": True}
    bases = (declared, create_model("Head", **head))
    return create_model(name, __base__=bases, __cls_kwargs__=closed)


def _faults(name: str, info: Any, ours: tuple[str, ...]) -> Iterator[str]:
    kind = info.annotation
    if name.partition(".")[2] in ours:
        yield f"{name} cannot be a setting of its own: every task has one of that name"
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for key, inner in kind.model_fields.items():
            yield from _faults(f"{name}.{key}", inner, ())
    elif info.is_required():
        yield f"{name} has no default"
    elif not _is_plain(info.get_default(call_default_factory=True)):
        yield f"{name} cannot be written into a settings file"


def _is_plain(value: Any) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list) else type(value) in _PLAIN


def _mapping(cls: type, name: str) -> Mapping[str, Any]:
    """A mapping of the class, for example `defaults`. Raises SettingsError if it is not one."""
    mapping = getattr(cls, name, {})
    by_name = _BY_NAME.get(name)
    inner = mapping.values() if isinstance(mapping, Mapping) and by_name else ()
    mappings = (mapping, *inner)
    is_valid = all(isinstance(item, Mapping) for item in mappings)
    if not is_valid or not all(isinstance(key, str) and key for item in mappings for key in item):
        allowed = 'settings by key, for example {"optim": {"lr": 1e-3}}'
        if by_name:
            allowed = f'settings of each {by_name}, as {{"small": {{"model.width": 8}}}}'
        raise _errors(cls, [f"{cls.__name__}.{name} is not understood"], allowed)
    return mapping


def _lines(cls: type, name: str, block: str) -> Iterator[Line]:
    """The settings in a mapping of the class, as those of a `block` of a family's file."""
    place, tree, line = _source(cls, name)

    def lines(value: Any, tree: ast.expr | None, line: int, key: str) -> Iterator[Line]:
        if not isinstance(value, Mapping) or key.endswith(MAPPINGS):
            value = list(value) if isinstance(value, tuple) else value
            yield Line(f"{block}{key}", value, f"{place}:{line}")
            return
        places = {}
        if isinstance(tree, ast.Dict):
            pairs = zip(tree.keys, tree.values, strict=True)
            places = {k.value: (v, k.lineno) for k, v in pairs if isinstance(k, ast.Constant)}
        for inner, child in value.items():
            dotted = f"{key}.{inner}" if key else inner
            child_tree, place_line = places.get(inner, (None, line))
            yield from lines(child, child_tree, place_line, dotted)

    return lines(_mapping(cls, name), tree, line, "")


def _source(cls: type, name: str) -> tuple[str, ast.expr | None, int]:
    """The file that gives the class its attribute `name`, the expression there, and its line."""
    owner = next((base for base in cls.__mro__ if name in vars(base)), cls)
    location = class_location(owner)
    file, _, line = location.rpartition(":")
    try:
        tree = ast.parse(Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        return location, None, 1
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    body = [child for node in classes if node.name == owner.__name__ for child in node.body]
    for statement in body:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            if name in [getattr(target, "id", None) for target in targets]:
                return file, statement.value, statement.lineno
    return (file, None, int(line)) if line.isdigit() else (location, None, 1)


def _errors(cls: type, whats: Sequence[str], allowed: str | None = None) -> SettingsError:
    where = class_location(cls)
    return SettingsError([Diagnostic(w, key=KEY, where=where, allowed=allowed) for w in whats])
