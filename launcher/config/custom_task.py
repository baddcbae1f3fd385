"""Custom tasks, `package.module:Class`: finding the module and the class."""

from __future__ import annotations

import importlib
import inspect
import os
import site
import sys
import traceback
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.base import environment
from launcher.base.diagnostics import SettingsError, from_here, nearest_match
from launcher.config.presets import TASK_FOLDER
from models.base import Task

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
    module = sys.modules.get(module_name) or _module(module_name, class_name)
    task_class = getattr(module, class_name, None)
    if isinstance(task_class, type):
        if missing := _missing(task_class):
            raise _error(
                f"class '{class_name}' is not a task: it lacks {', '.join(missing)}",
                name,
                where=class_location(task_class),
                allowed="the methods of models.base.Task; models.custom.CustomTask has most of them",
            )
        return task_class
    home = Path(module.__file__ or "").absolute()
    if module_name == MAIN and home.is_relative_to(environment.ROOT / "launcher"):
        raise _error(
            f"class '{class_name}' is of a script or notebook, which this process does not run",
            name,
            allowed="one process that the script starts itself; or a class in a module",
        )
    classes = [cls for cls in vars(module).values() if isinstance(cls, type)]
    tasks = [cls.__name__ for cls in classes if cls.__module__ == module.__name__ and not _missing(cls)]
    suggestion = nearest_match(class_name, tasks)
    raise _error(
        f"module '{module_name}' has no class '{class_name}'",
        name,
        where=_where(module.__file__, None),
        allowed=", ".join(tasks) or "a class of it that is a task; this module has none",
        did_you_mean=suggestion and f"{module_name}:{suggestion}",
    )


def name_of(cls: type) -> str:
    """The `package.module:Class` of a class; one of a script has the name of its file.

    A class of a notebook, or typed at a prompt, stays `__main__:Class`. Raises SettingsError.
    """
    name, module = f"{cls.__module__}:{cls.__qualname__}", sys.modules.get(cls.__module__)
    if module is None or getattr(module, cls.__qualname__, None) is not cls:
        raise _error(
            f"class '{cls.__qualname__}' is not what '{cls.__module__}' has by this name",
            name,
            where=class_location(cls),
            allowed="a class at the top of a module, script or notebook, as it is there now",
        )
    file = getattr(module, "__file__", None) or ""
    script = Path(file).stem if file.endswith(".py") else ""
    script = script if module.__spec__ is None else module.__spec__.name
    # Other processes import the script under the name of its file, and this one must not run it.
    is_name = cls.__module__ == MAIN and all(part.isidentifier() for part in script.split("."))
    is_same = is_name and sys.modules.setdefault(script, module) is module
    return f"{script}:{cls.__qualname__}" if is_same else name


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
    top, folder, here = name.partition(":")[0].partition(".")[0], Path(recorded), Path.cwd()
    is_there = folder.is_absolute() and "\0" not in recorded and os.path.realpath(folder) == recorded
    is_trusted = is_there and folder.is_dir() and not folder.is_relative_to(file.parent.resolve())
    is_here = (here / f"{top}.py").is_file() or (here / top / "__init__.py").is_file()
    if is_trusted and not is_here:
        return recorded
    if top not in sys.modules:
        spec = PathFinder.find_spec(top, [str(here), *sys.path])
        if spec is None:
            raise SettingsError.of(
                f"{name} is not loaded from {TASK_FOLDER} '{recorded}': it has moved, or a run names itself",
                key=TASK_FOLDER,
                value=recorded,
                where=where,
                allowed="a module in the working directory or on the Python path; or its folder, "
                "named on the command line by who trusts it",
                fix=f"--set {TASK_FOLDER}=DIR",
            )
        place = Path(next(iter(spec.submodule_search_locations or [str(spec.origin)])))
        if place.parent.resolve() != folder:
            print(f"note: {name} is loaded from {place}, not from {recorded}", file=sys.stderr)
    return str(here) if is_here else None


def check_importable(family: str, call: str) -> None:
    """Raise SettingsError if other processes cannot import the task, which `call` needs."""
    module, _, name = family.partition(":")
    if module == MAIN:
        message = f"class '{name}' is of a notebook or was typed, which other processes cannot import"
        raise _error(message, family, where=call, allowed="one process; or a class in a module")


def check_not_importing() -> None:
    """Raise SettingsError if this process is just importing a task: a script that trains then."""
    if _importing:
        module = _importing[-1]
        raise _error(
            f"'{module}' trains while a process imports it, to find its task",
            module,
            where=_where(getattr(sys.modules.get(module), "__file__", None), None),
            fix='put what trains below  if __name__ == "__main__":',
        )


_importing: list[str] = []
"""The modules of tasks that this process is importing."""


def task_folder(name: str) -> str | None:
    """The folder in which the module of a task was found, without links; None: it is installed."""
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    path = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), None)
    if path is None:
        return None
    file = Path(path).absolute()
    home = file.parent.parent if file.name == "__init__.py" else file.parent
    return None if str(home) in _installed() else os.path.realpath(home)


def class_location(cls: type) -> str:
    """File and line of a class, as messages name them."""
    try:
        file, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        file, line = None, 0
    return _where(file, line) or f"class {cls.__name__}"


def _module(name: str, class_name: str) -> ModuleType:
    full, path = f"{name}:{class_name}", Path(name)
    if "/" in name or path.suffix == ".py":
        parts = path.with_suffix("").parts if not path.is_absolute() and ".." not in path.parts else ()
        suggestion = f"{'.'.join(parts) or path.stem}:{class_name}"
        fix = None if parts else f"--model {suggestion} --set {TASK_FOLDER}={path.parent}"
        message = f"'{name}' is a file, not the name of a module"
        raise _error(message, full, allowed=LEGAL, did_you_mean=suggestion, fix=fix)
    add_search_folder(None)
    importlib.invalidate_caches()
    _importing.append(name)
    try:
        return importlib.import_module(name)
    except SettingsError:  # of check_not_importing
        raise
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise _error(f"module '{name}' does not exist", full, allowed=LEGAL) from None
        last_line = traceback.format_exception_only(error)[-1].strip()
        folders = (environment.ROOT / package for package in (*environment.PACKAGES, "launcher"))
        ours = ("<frozen", *_installed(), *(f"{folder}{os.sep}" for folder in folders))
        frames = traceback.extract_tb(error.__traceback__)
        places = [(f.filename, f.lineno) for f in frames if not f.filename.startswith(ours)]
        if isinstance(error, SyntaxError):
            places = [(error.filename or "", error.lineno)]
        where = _where(*places[-1]) if places else None
        message = f"module '{name}' cannot be imported: {last_line}"
        raise _error(message, full, where=where) from error
    finally:
        _importing.pop()


def _installed() -> tuple[str, ...]:
    """The folders of installed packages, and of Python's library."""
    library = os.path.dirname(os.__file__)
    return (*site.getsitepackages(), site.getusersitepackages(), library)


def _missing(cls: type) -> list[str]:
    named = [*Task.__annotations__, *(n for n, v in vars(Task).items() if inspect.isfunction(v))]
    abstract = getattr(cls, "__abstractmethods__", frozenset[str]())
    missing = [n for n in named if n[0] != "_" and (not hasattr(cls, n) or n in abstract)]
    return [*missing, *sorted(abstract - set(missing))]


def _where(file: str | None, line: int | None) -> str | None:
    """A file as one would type it from here, and a line of it."""
    if file is None:
        return None
    return from_here(Path(file)) + ("" if line is None else f":{line}")


def _error(what: str, name: str, **parts: Any) -> SettingsError:
    return SettingsError.of(what, key=KEY, value=name, **parts)
