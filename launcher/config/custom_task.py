"""Custom tasks, `package.module:Class`: finding the class, and the settings that it declares."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import site
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
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
LEGAL = "package.module:Class, where Python finds the module from here"
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
    module = sys.modules.get(module_name)
    path = Path(module_name)
    if module is None and ("/" in module_name or path.suffix == ".py"):
        meant = f"{path.stem}:{class_name}"
        fix = f"--model {meant} --set {TASK_FOLDER}={path.parent}"
        message = f"'{module_name}' is a file, not the name of a module"
        raise _error(message, name, allowed=LEGAL, did_you_mean=meant, fix=fix)
    if module is None:
        add_search_folder(None)
        importlib.invalidate_caches()
        _importing.append(module_name)
        try:
            module = importlib.import_module(module_name)
        except SettingsError:  # of check_not_importing
            raise
        except (Exception, SystemExit) as error:  # the user's module may raise anything
            if isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(
                f"{error.name}."
            ):
                raise _error(
                    f"module '{module_name}' does not exist", name, allowed=LEGAL
                ) from None
            # After this function and import_module comes the line of the module.
            frames = traceback.extract_tb(error.__traceback__)[2:]
            places = [
                (f.filename, f.lineno) for f in frames if not f.filename.startswith("<frozen")
            ]
            if isinstance(error, SyntaxError):
                places = [(error.filename or "", error.lineno)]
            last_line = traceback.format_exception_only(error)[-1].strip()
            message = f"module '{module_name}' cannot be imported: {last_line}"
            raise _error(message, name, where=_where(*places[0]) if places else None) from error
        finally:
            _importing.pop()
    task_class = getattr(module, class_name, None)
    if not isinstance(task_class, type):
        classes = [cls for cls in vars(module).values() if isinstance(cls, type)]
        tasks = [
            cls.__name__
            for cls in classes
            if cls.__module__ == module.__name__ and not _missing(cls)
        ]
        like = nearest_match(class_name, tasks)
        message = f"'{module_name}' has no class '{class_name}'"
        parts = {"allowed": ", ".join(tasks) or "a task; this module has none"}
        if like:
            parts["did_you_mean"] = f"{module_name}:{like}"
        raise _error(message, name, where=_where(module.__file__, None), **parts)
    if missing := _missing(task_class):
        message = f"class '{class_name}' is not a task: it lacks {', '.join(missing)}"
        allowed = "the methods of gearshift.Task; gearshift.CustomTask has most of them"
        raise _error(message, name, where=class_location(task_class), allowed=allowed)
    return task_class


def name_of(cls: type) -> str:
    """The `package.module:Class` of a class; one of a script has the name of its file.

    A class of a notebook, or typed at a prompt, stays `__main__:Class`. Raises SettingsError.
    """
    name = cls.__module__
    module = sys.modules.get(cls.__module__)
    if module is None or getattr(module, cls.__qualname__, None) is not cls:
        message = f"class '{cls.__qualname__}' is not what '{name}' has by this name"
        allowed = "a class at the top of a module, script or notebook, as it is there now"
        raise _error(
            message, f"{name}:{cls.__qualname__}", where=class_location(cls), allowed=allowed
        )
    file = Path(getattr(module, "__file__", None) or "")
    script = module.__spec__.name if module.__spec__ else file.stem if file.suffix == ".py" else ""
    # Other processes import the script under the name of its file, and this one must not run it.
    if name == MAIN and all(map(str.isidentifier, script.split("."))):
        name = script if sys.modules.setdefault(script, module) is module else name
    return f"{name}:{cls.__qualname__}"


@cache
def folder_for(name: object, recorded: object, file: Path, where: str) -> str | None:
    """The folder of the module of the task `name`, by the `recorded` one; None: not recorded.

    `file`, of a run or of another person, has recorded it at `where`, and is data, whoever made it: a
    module of the working directory comes first, and the folder counts if it is the very path it was,
    and outside of the folder of `file`. Else the module is that of the Python path. Another one than
    recorded is said once. Reads the disk. Raises SettingsError if there is none.
    """
    if not isinstance(name, str) or not isinstance(recorded, str):
        return None
    top = name.partition(":")[0].partition(".")[0]
    folder = Path(recorded)
    here = Path.cwd()
    is_there = (
        folder.is_absolute() and "\0" not in recorded and os.path.realpath(folder) == recorded
    )
    is_trusted = is_there and folder.is_dir() and not folder.is_relative_to(file.parent.resolve())
    is_here = (here / f"{top}.py").is_file() or (here / top / "__init__.py").is_file()
    if is_trusted and not is_here:
        return recorded
    if top not in sys.modules:
        spec = PathFinder.find_spec(top, [str(here), *sys.path])
        if spec is None:
            message = f"{name} is not loaded from {TASK_FOLDER} '{recorded}', which has moved or is of the run"
            allowed = "a module in the working directory or on the Python path, or its folder"
            parts = {"value": recorded, "where": where, "fix": f"--set {TASK_FOLDER}=DIR"}
            raise SettingsError.of(message, key=TASK_FOLDER, allowed=allowed, **parts)
        path = Path(next(iter(spec.submodule_search_locations or [str(spec.origin)])))
        if path.parent.resolve() != folder:
            print(f"note: {name} is loaded from {path}, not from {recorded}", file=sys.stderr)
    return str(here) if is_here else None


def check_importable(family: str, call: str) -> None:
    """Raise SettingsError if other processes cannot import the task, which `call` needs."""
    module, _, name = family.partition(":")
    if module == MAIN:
        message = (
            f"class '{name}' is of a notebook or was typed, which other processes cannot import"
        )
        raise _error(message, family, where=call, allowed="one process; or a class in a module")


def check_not_importing() -> None:
    """Raise SettingsError if this process is just importing a task: a script that trains then."""
    if _importing:
        module = _importing[-1]
        message = f"'{module}' trains while a process imports it, to find its task"
        where = _where(getattr(sys.modules.get(module), "__file__", None), None)
        raise _error(
            message, module, where=where, fix='put what trains below  if __name__ == "__main__":'
        )


_importing: list[str] = []
"""The modules of tasks that this process is importing."""


def task_folder(name: str) -> str | None:
    """The folder in which the module of a task was found, without links; None: it is installed."""
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    path = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), None)
    if path is None:
        return None
    home = Path(path).absolute().parents[Path(path).name == "__init__.py"]
    installed = (*site.getsitepackages(), site.getusersitepackages(), os.path.dirname(os.__file__))
    return None if str(home) in installed else os.path.realpath(home)


def class_location(cls: type) -> str:
    """File and line of a class, as messages name them."""
    try:
        file = inspect.getsourcefile(cls)
        line = inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        file = None
        line = 0
    return _where(file, line) or f"class {cls.__name__}"


def _missing(cls: type) -> list[str]:
    """The public names of a task that `cls` lacks, and its abstract methods."""
    named = [*Task.__annotations__, *(n for n, v in vars(Task).items() if inspect.isfunction(v))]
    abstract = getattr(cls, "__abstractmethods__", frozenset[str]())
    missing = [name for name in named if name[0] != "_" and not hasattr(cls, name)]
    return [*missing, *sorted(abstract)]


def _where(file: str | None, line: int | None) -> str | None:
    """A file as one would type it from here, and a line of it."""
    if file is None:
        return None
    return from_here(Path(file)) + ("" if line is None else f":{line}")


def _error(what: str, name: str, **parts: Any) -> SettingsError:
    return SettingsError.of(what, key=KEY, value=name, **parts)


# What a class declares.

_SPLIT: dict[str, Any] = {"split_seed": (SplitSeed, None), "fold": (Fold, None)}
"""Settings of the data that a task reads with CustomTask.split_groups, unless it declares its own
of that name."""
_ALLOWED = {
    **dict.fromkeys(
        ("Model", "Data"), "a BaseModel of switches, numbers, texts, and lists of them"
    ),
    "stages": "each a gearshift.Stage of another name, which loads a setting",
    **dict.fromkeys(
        ("defaults", "sizes", "stage_settings"), "settings by key; of sizes and stages, by name"
    ),
}


@dataclass(frozen=True, eq=False)
class Declared:
    """What the config module of a family holds, see models.catalog.Family, and its file and stages."""

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
    folder = Field(task_folder(name), description="Folder of the task's module; null: installed.")
    family = Field(name, description="The task: package.module:Class.")
    head: dict[str, Any] = {"family": (str, family), "folder": (str | None, folder)}
    blocks = (("defaults", "declared."), ("sizes", "sizes."), ("stage_settings", "stages."))
    lines = [line for attribute, block in blocks for line in _lines(cls, attribute, block)]
    if sizes := dict.fromkeys(getattr(cls, "sizes", ())):
        size = Field(next(iter(sizes)), description="The size, of those that the task declares.")
        head["size"] = (str, size)
    model = _section(cls, "Model", head)
    data = _section(cls, "Data", _SPLIT)
    with _understood(cls, "stages"):
        stages = tuple(getattr(cls, "stages", ()))
        sections = (("model", model), ("data", data))
        keys = {
            None,
            *(f"{section}.{key}" for section, fields in sections for key in fields.model_fields),
        }
        names = {stage.name for stage in stages if stage.loads in keys}
        if len(names) < len(stages) or not {*getattr(cls, "stage_settings", ())} <= names:
            raise ValueError("two have one name, or a name or setting is unknown")
    return Declared(
        model, data, sizes, Preset([*presets.file("custom_task").lines, *lines]), stages
    )


@contextmanager
def _understood(cls: type, name: str) -> Iterator[None]:
    """Raise SettingsError for what Python, pydantic or the block rejects in an attribute of a task."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        value = getattr(cls, name)
        problem = " ".join(str(error).split())
        where = class_location(
            value if isinstance(value, type) and issubclass(value, BaseModel) else cls
        )
        message = f"{cls.__name__}.{name} is not understood: {problem}"
        raise SettingsError.of(message, key=KEY, where=where, allowed=_ALLOWED[name]) from None


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
        by_name = (
            {}
            if name == "defaults"
            else {part: dict(settings) for part, settings in mapping.items()}
        )
        settings = [*settings_file.flat(by_name or mapping)]
    owner = next((base for base in cls.__mro__ if name in vars(base)), cls)
    path, _, line = class_location(owner).rpartition(":")
    where = f"{line}:1"
    if line.isdigit():
        texts = enumerate(inspect.getsourcelines(owner)[0], int(line))
        at = next((n for n, text in texts if re.match(rf"\s+{name}\s*[:=]", text)), line)
        where = f"{path}:{at}"
    for key, value in settings:
        yield Line(f"{block}{key}", list(value) if isinstance(value, tuple) else value, where)
