"""Custom tasks, `package.module:Class`: finding the class, and the settings that it declares."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, Field, create_model

from gearshift.launcher.base.diagnostics import SettingsError, from_here, nearest_match
from gearshift.launcher.config import presets, settings_file
from gearshift.launcher.config.presets import TASK_FOLDER, Preset
from gearshift.launcher.config.settings_file import Line
from gearshift.models.base import Task
from gearshift.models.catalog import Stage
from gearshift.models.common.config import Fold, SplitSeed
from gearshift.training.settings import Section

KEY = "model.family"
LEGAL = (
    "package.module:Class, where Python finds the module from here; "
    f"of a file DIR/NAME.py  NAME:Class --set {TASK_FOLDER}=DIR"
)
MAIN = "__main__"


def add_search_folder(folder: object) -> None:
    """From now on modules are looked for in the working directory, and before all in `folder`.

    `folder` is ignored unless it is a text.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if isinstance(folder, str):
        path = os.path.abspath(os.path.expanduser(folder))
        sys.path[:] = [path, *(other for other in sys.path if other != path)]


def load_task_class(name: str) -> type:
    """The class that `name` names, which has all that a task has. Imports its module.

    Raises SettingsError, with file and line if they are known.
    """
    module_name, _, class_name = name.partition(":")
    module = sys.modules.get(module_name) or _import(module_name, name)
    task_class = getattr(module, class_name, None)
    if not isinstance(task_class, type):
        like = nearest_match(class_name, vars(module))
        raise _error(
            f"'{module_name}' has no class '{class_name}'",
            name,
            where=_where(module.__file__),
            allowed="a class of this module; other processes cannot import one of a notebook",
            did_you_mean=like and f"{module_name}:{like}",
        )
    missing = _missing(task_class)
    if missing:
        raise _error(
            f"class '{class_name}' is not a task: it lacks {', '.join(missing)}",
            name,
            where=class_location(task_class),
            allowed="the methods of gearshift.Task; gearshift.CustomTask has most of them",
        )
    return task_class


def _import(module_name: str, name: str) -> ModuleType:
    """Import the module of the task `name`. Raises SettingsError, with file and line if known."""
    add_search_folder(None)
    importlib.invalidate_caches()
    _importing.append(module_name)
    try:
        return importlib.import_module(module_name)
    except SettingsError:  # of check_not_importing
        raise
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        # After this function and import_module comes the line of the module.
        frames = traceback.extract_tb(error.__traceback__)[2:]
        places = [(f.filename, f.lineno) for f in frames if not f.filename.startswith("<frozen")]
        if isinstance(error, SyntaxError):
            places = [(error.filename or "", error.lineno)]
        last_line = traceback.format_exception_only(error)[-1].strip()
        message = f"module '{module_name}' cannot be imported: {last_line}"
        where = _where(*places[0]) if places else None
        raise _error(message, name, where=where, allowed=LEGAL) from error
    finally:
        _importing.pop()


def name_of(cls: type) -> str:
    """The `package.module:Class` of a class; one of a script has the name of its file.

    A class of a notebook, or typed at a prompt, stays `__main__:Class`.
    """
    name = cls.__module__
    if name == MAIN:
        module = sys.modules[MAIN]
        script = inspect.getmodulename(getattr(module, "__file__", None) or "") or ""
        if module.__spec__:
            script = module.__spec__.name
        # Other processes import the script under its file's name, and this one must not run it.
        is_importable = all(map(str.isidentifier, script.split(".")))
        if is_importable and sys.modules.setdefault(script, module) is module:
            name = script
    return f"{name}:{cls.__qualname__}"


def folder_for(name: object, recorded: object, file: Path, where: str) -> str | None:
    """The folder of the module of the task `name`, by the `recorded` one; None: not recorded.

    `file`, of a run or of another person, has recorded it at `where`, and is data, whoever made it:
    a module of the working directory comes first, and the folder counts if it is the very path it
    was, and outside of the folder of `file`. Else the module is that of the Python path. Reads the
    disk. Raises SettingsError if there is none.
    """
    if not isinstance(name, str) or not isinstance(recorded, str):
        return None
    top = _top(name)
    here = Path.cwd()
    if (here / f"{top}.py").is_file() or (here / top / "__init__.py").is_file():
        return str(here)
    folder = Path(recorded)
    is_there = folder.is_absolute() and "\0" not in recorded
    is_there = is_there and os.path.realpath(folder) == recorded and folder.is_dir()
    if is_there and not folder.is_relative_to(file.parent.resolve()):
        return recorded
    if top not in sys.modules and PathFinder.find_spec(top, [str(here), *sys.path]) is None:
        raise SettingsError.of(
            f"{name} is not loaded from {TASK_FOLDER} '{recorded}', "
            "which has moved or is of the run",
            key=TASK_FOLDER,
            value=recorded,
            where=where,
            allowed="a module in the working directory or on the Python path, or its folder",
            hint=f"--set {TASK_FOLDER}=DIR",
        )
    return None


def check_not_importing() -> None:
    """Raise SettingsError if this process is just importing a task: a script that trains then."""
    if _importing:
        module = _importing[-1]
        raise _error(
            f"'{module}' trains while a process imports it, to find its task",
            module,
            where=_where(getattr(sys.modules.get(module), "__file__", None)),
            hint='put what trains below  if __name__ == "__main__":',
        )


_importing: list[str] = []
"""The modules of tasks that this process is importing."""


def task_folder(name: str) -> str | None:
    """The folder in which the module of a task was found, without links; None: it is installed."""
    top = sys.modules[_top(name)]
    file = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), None)
    if file is None:
        return None
    path = Path(file).absolute()
    home = path.parents[path.name == "__init__.py"]
    is_installed = home.name in ("site-packages", "dist-packages")
    return None if is_installed else os.path.realpath(home)


def _top(name: str) -> str:
    """The module or package at the top of a task's name."""
    return re.split("[.:]", name)[0]


def class_location(cls: type) -> str:
    """File and line of a class, as messages name them."""
    try:
        return f"{_where(inspect.getsourcefile(cls))}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"class {cls.__name__}"


def _missing(cls: type) -> list[str]:
    """The public names of a task that `cls` lacks, and its abstract methods."""
    names = [*Task.__annotations__]
    names += [name for name, member in vars(Task).items() if inspect.isfunction(member)]
    missing = [name for name in names if not name.startswith("_") and not hasattr(cls, name)]
    return missing + sorted(getattr(cls, "__abstractmethods__", ()))


def _where(file: str | None, line: int | None = None) -> str | None:
    """A file as one would type it from here, and a line of it."""
    place = from_here(Path(file)) if file else None
    return f"{place}:{line}" if place and line else place


def _error(what: str, name: str, **parts: Any) -> SettingsError:
    return SettingsError.of(what, key=KEY, value=name, **parts)


# What a class declares.

_SPLIT: dict[str, Any] = {"split_seed": (SplitSeed, None), "fold": (Fold, None)}
"""Settings of the data that a task reads with CustomTask.split_groups, unless it declares its own
of that name."""
_ALLOWED = "a declaration as in docs/own-models.md"
_BLOCKS = {"defaults": "declared.", "sizes": "sizes.", "stage_settings": "stages."}
"""The attributes of a class with settings, and their blocks of a family's file."""


@dataclass(frozen=True, eq=False)
class Declared:
    """What the config module of a family holds (models.catalog.Family), its file and stages."""

    Model: type[BaseModel]
    Data: type[BaseModel]
    SIZES: Mapping[str, Any]
    """No size has a number of parameters that is known before it is built."""
    file: Preset
    """`defaults`, `sizes` and stages of the class, above the defaults of all custom tasks."""
    stages: tuple[Stage, ...]


def declared(name: str) -> Declared:
    """What the class of the task `name` declares. Imports its module. Raises SettingsError."""
    return _declared(load_task_class(name), name)


@cache
def _declared(cls: type, name: str) -> Declared:
    lines = [*presets.file("custom_task").lines]
    for attribute, block in _BLOCKS.items():
        lines += _lines(cls, attribute, block)
    family = Field(name, description="The task: package.module:Class.")
    folder = Field(task_folder(name), description="Folder of the task's module; null: installed.")
    head: dict[str, Any] = {"family": (str, family), "folder": (str | None, folder)}
    sizes = dict.fromkeys(getattr(cls, "sizes", ()))
    if sizes:
        size = Field(next(iter(sizes)), description="The size, of those that the task declares.")
        head["size"] = (str, size)
    model = _section(cls, "Model", head)
    data = _section(cls, "Data", _SPLIT)
    with _understood(cls, "stages"):
        stages = tuple(getattr(cls, "stages", ()))
        keys = [f"model.{key}" for key in model.model_fields]
        keys += [f"data.{key}" for key in data.model_fields]
        names = {stage.name for stage in stages if stage.loads in (None, *keys)}
        if len(names) < len(stages) or not names.issuperset(getattr(cls, "stage_settings", ())):
            raise ValueError("two have one name, or a name or setting is unknown")
    return Declared(model, data, sizes, Preset(lines), stages)


@contextmanager
def _understood(cls: type, name: str) -> Iterator[None]:
    """Raise SettingsError for what Python or pydantic rejects in an attribute of a task."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        value = getattr(cls, name)
        is_section = isinstance(value, type) and issubclass(value, BaseModel)
        raise SettingsError.of(
            f"{cls.__name__}.{name} is not understood: {' '.join(str(error).split())}",
            key=KEY,
            where=class_location(value if is_section else cls),
            allowed=_ALLOWED,
        ) from None


def _section(cls: type, name: str, head: dict[str, Any]) -> type[BaseModel]:
    """The class of settings within a task, frozen, refusing other keys, after the fields of `head`.

    Raises SettingsError if it is invalid.
    """
    with _understood(cls, name):
        section: type[BaseModel] = getattr(cls, name, Section)
        defaults = create_model(name, __base__=section, __cls_kwargs__={"validate_default": True})()
        for key, value in defaults.model_dump().items():
            if name == "Model" and key in ("family", "size", "folder"):
                raise ValueError(f"every task has the setting {key}")
            if json.loads(json.dumps(value)) != value:
                raise ValueError(f"{key} cannot be written into a settings file")
        closed = {"extra": "forbid", "frozen": True}
        return create_model(
            name, __base__=(section, create_model("Head", **head)), __cls_kwargs__=closed
        )


def _lines(cls: type, name: str, block: str) -> Iterator[Line]:
    """The settings in a mapping of the class, as those of a `block` of a family's file."""
    with _understood(cls, name):
        mapping = getattr(cls, name, {})
        if name != "defaults":
            mapping = {part: dict(settings) for part, settings in mapping.items()}
        settings = list(settings_file.flat(mapping))
    where = class_location(cls)
    for key, value in settings:
        yield Line(f"{block}{key}", list(value) if isinstance(value, tuple) else value, where)
