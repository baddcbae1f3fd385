"""Finds a task of the person's own, `package.module:Class`, and says what is wrong with it."""

from __future__ import annotations

import importlib
import inspect
import os
import site
import sys
import traceback
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from launcher.base import environment
from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match
from models.base import Task

KEY, FOLDER = "model.family", "model.folder"
LEGAL = "package.module:Class, where Python finds the module from here"
_PINNED = (*sorted(environment.PACKAGES), "launcher")


def add_search_folder(folder: object) -> None:
    """From now on modules are looked for in the working directory, and before all in `folder`.

    Anything that is no text names no folder.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if isinstance(folder, str):
        place = os.path.abspath(os.path.expanduser(folder))
        sys.path[:] = [place, *(other for other in sys.path if other != place)]


@cache
def load_task_class(name: str) -> type:
    """The class that `name` names, which has all that a task has. Imports its module.

    Raises SettingsError; the place of its fault is a file and a line, or None.
    """
    module_name, _, class_name = name.partition(":")
    module = _module(module_name, class_name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        tasks = [cls.__name__ for cls in _classes(module) if not _missing(cls)]
        near = nearest_match(class_name, tasks) or (tasks[0] if len(tasks) == 1 else None)
        what = f"there is no class '{class_name}' in module '{module_name}'"
        if found is not None:
            what = f"'{class_name}' in module '{module_name}' is no class"
        raise _fault(
            what,
            name,
            where=_where(module.__file__, None),
            allowed=", ".join(tasks) or "a class of it that is a task; this module has none",
            did_you_mean=near and f"{module_name}:{near}",
        )
    if missing := _missing(found):
        raise _fault(
            f"class '{class_name}' is no task: it has no {', '.join(missing)}",
            name,
            where=class_location(found),
            allowed="all that models/base.py: Task names; models/custom.py: CustomTask has most of it",
        )
    return found


def task_folder(name: str) -> str | None:
    """Where the module of a task was found; None: among what is installed."""
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    path = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), None)
    if path is None:
        return None
    file = Path(path).absolute()
    home = file.parent.parent if file.name == "__init__.py" else file.parent
    return None if str(home) in _installed() else str(home)


def is_other_task(name: str, folder: str) -> bool:
    """Whether this process has imported the task from elsewhere, though `folder` has its module.

    A process has one module of a name, whatever folder is looked into later.
    """
    top, found = name.partition(":")[0].partition(".")[0], task_folder(name)
    is_there = PathFinder.find_spec(top, [os.path.abspath(folder)]) is not None
    return is_there and (found is None or not Path(found).samefile(folder))


def class_location(cls: type) -> str:
    """File and line of a class, as messages name them."""
    try:
        file, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        file, line = None, 0
    return _where(file, line) or f"class {cls.__name__}"


def _module(name: str, class_name: str) -> ModuleType:
    """Import a module of the person's. Raises SettingsError."""
    full = f"{name}:{class_name}"
    top = name.partition(".")[0]
    if "/" in name or name.endswith(".py"):
        raise _is_file(Path(name), class_name)
    if top in _PINNED:
        raise _fault(
            f"module '{name}' would lie in '{top}', which is a package of this program",
            full,
            allowed=f"any name that does not begin with {', '.join(_PINNED)}",
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise _fault(f"'{name}' is no name of a module", full, allowed=LEGAL)
    add_search_folder(None)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(error, name, full) from error
        near = nearest_match(name, _modules_beside(name))
        raise _fault(
            f"there is no module '{name}'",
            full,
            allowed=LEGAL,
            did_you_mean=near and f"{near}:{class_name}",
        ) from None
    except (Exception, SystemExit) as error:  # whatever the person's code raises is told to them
        raise _broken(error, name, full) from error


def _is_file(path: Path, class_name: str) -> SettingsError:
    """What to tell of a path in the place of a module."""
    stem = path.with_suffix("")
    dotted = ".".join(stem.parts)
    is_below = not path.is_absolute() and ".." not in path.parts
    near = f"{dotted if is_below else stem.name}:{class_name}"
    elsewhere = f"--model {near} --set {FOLDER}={path.parent}"
    return _fault(
        f"'{path}' is a file, not the name of a module",
        f"{path}:{class_name}",
        allowed=LEGAL,
        did_you_mean=near,
        fix=None if is_below else elsewhere,
    )


def _broken(error: BaseException, name: str, full: str) -> SettingsError:
    """What to tell of a module that raises while it is imported: what, and its own last line."""
    told = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        place = _where(error.filename, error.lineno)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if _is_theirs(frame.filename)]
        place = _where(theirs[-1].filename, theirs[-1].lineno) if theirs else None
    return _fault(f"module '{name}' cannot be imported: {told}", full, where=place)


def _is_theirs(file: str) -> bool:
    """Whether a frame is of the person's code, and not of Python's, of ours or of a library."""
    ours = [f"{environment.ROOT / name}{os.sep}" for name in _PINNED]
    return not file.startswith(("<frozen", *_installed(), *ours))


def _installed() -> tuple[str, ...]:
    """The folders of what is installed, Python's own library among them."""
    library = os.path.dirname(os.__file__)
    return (*site.getsitepackages(), site.getusersitepackages(), library)


def _modules_beside(name: str) -> Iterator[str]:
    """The modules there are in the folder where `name` was looked for."""
    *above, _ = name.split(".")
    for root in dict.fromkeys((os.getcwd(), *sys.path[:1])):
        folder = Path(root, *above)
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.suffix == ".py" or (path / "__init__.py").is_file():
                yield ".".join((*above, path.stem))


def _classes(module: ModuleType) -> list[type]:
    return [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and cls.__module__ == module.__name__
    ]


def _missing(cls: type) -> list[str]:
    """What a class lacks to be a task, in the words of the contract."""
    named = [*Task.__annotations__, *(n for n, v in vars(Task).items() if inspect.isfunction(v))]
    abstract = getattr(cls, "__abstractmethods__", frozenset[str]())
    missing = [n for n in named if n[0] != "_" and (not hasattr(cls, n) or n in abstract)]
    return [*missing, *sorted(abstract - set(missing))]


def _where(file: str | None, line: int | None) -> str | None:
    """A file as one would type it from here, and a line of it."""
    if file is None:
        return None
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return str(path) if line is None else f"{path}:{line}"


def _fault(what: str, name: str, **told: Any) -> SettingsError:
    return SettingsError([Diagnostic(what, key=KEY, value=name, **told)])
