"""Custom tasks, `package.module:Class`: finding the class, its settings, sizes and stages."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import site
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, Field, ValidationError, create_model

from launcher.base import environment
from launcher.base.diagnostics import Diagnostic, SettingsError, from_here, nearest_match
from launcher.config import presets
from launcher.config.presets import Block, FamilyFile
from launcher.config.settings_file import Node
from models.base import Context, Task
from models.catalog import FAMILIES, Stage, is_custom

KEY, FOLDER = "model.family", "model.folder"
LEGAL = "package.module:Class, where Python finds the module from here"
MAIN = "__main__"
_PINNED = (*sorted(environment.PACKAGES), "launcher")


def add_search_folder(folder: object) -> None:
    """From now on modules are looked for in the working directory, and before all in `folder`.

    `folder` is ignored unless it is a text.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    if isinstance(folder, str):
        place = os.path.abspath(os.path.expanduser(folder))
        sys.path[:] = [place, *(other for other in sys.path if other != place)]


@cache
def load_task_class(name: str) -> type:
    """The class that `name` names, which has all that a task has. Imports its module.

    Raises SettingsError, with file and line if they are known.
    """
    module_name, _, class_name = name.partition(":")
    module = _module(module_name, class_name)
    found = getattr(module, class_name, None)
    if module_name == MAIN and found is None and _is_ours(module):
        raise _error(
            f"class '{class_name}' is of a script or notebook, which this process does not run",
            name,
            allowed="one process that the script starts itself; or a class in a module, which "
            "every process and command can import",
            fix=f"save the class in a file my_task.py, and name it my_task:{class_name}",
        )
    if not isinstance(found, type):
        classes = [cls for cls in vars(module).values() if isinstance(cls, type)]
        own = [cls for cls in classes if cls.__module__ == module.__name__]
        tasks = [cls.__name__ for cls in own if not _missing(cls)]
        near = nearest_match(class_name, tasks) or (tasks[0] if len(tasks) == 1 else None)
        what = f"module '{module_name}' has no class '{class_name}'"
        if found is not None:
            what = f"'{class_name}' in module '{module_name}' is not a class"
        raise _error(
            what,
            name,
            where=_where(module.__file__, None),
            allowed=", ".join(tasks) or "a class of it that is a task; this module has none",
            did_you_mean=near and f"{module_name}:{near}",
        )
    if missing := _missing(found):
        raise _error(
            f"class '{class_name}' is not a task: it lacks {', '.join(missing)}",
            name,
            where=class_location(found),
            allowed="the methods of models.base.Task; models.custom.CustomTask has most of them",
        )
    return found


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
    if cls.__module__ != MAIN:
        return name
    spec, file = module.__spec__, getattr(module, "__file__", None)
    found = Path(file).stem if file is not None and file.endswith(".py") else ""
    found = spec.name if spec is not None else found
    # Other processes import the script under the name of its file, and this one must not run it.
    is_name = all(part.isidentifier() for part in found.split("."))
    if is_name and sys.modules.setdefault(found, module) is module:
        return f"{found}:{cls.__qualname__}"
    return name


def check_importable(family: str, call: str) -> None:
    """Raise SettingsError if other processes cannot import the task, which `call` needs."""
    module, _, name = family.partition(":")
    if module != MAIN:
        return
    raise _error(
        f"class '{name}' is of a notebook or was typed, which other processes cannot import",
        family,
        where=call,
        allowed="one process; or a class in a module",
        fix=f"%%writefile my_task.py  as first line of a cell with {name} and its imports; then  "
        f"from my_task import {name}",
    )


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
    """The folder in which the module of a task was found; None: it is installed."""
    top = sys.modules[name.partition(":")[0].partition(".")[0]]
    path = getattr(top, "__file__", None) or next(iter(getattr(top, "__path__", [])), None)
    if path is None:
        return None
    file = Path(path).absolute()
    home = file.parent.parent if file.name == "__init__.py" else file.parent
    return None if str(home) in _installed() else str(home)


def is_other_task(name: str, folder: str) -> bool:
    """Whether this process has imported the task from elsewhere, though `folder` has its module.

    A process imports only one module of a name.
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
    full = f"{name}:{class_name}"
    top = name.partition(".")[0]
    if "/" in name or name.endswith(".py"):
        raise _is_file(Path(name), class_name)
    if top in _PINNED:
        raise _error(
            f"module '{name}' would lie in '{top}', which is a package of this program",
            full,
            allowed=f"any name that does not begin with {', '.join(_PINNED)}",
        )
    if not all(part.isidentifier() for part in name.split(".")):
        raise _error(f"'{name}' is not a module name", full, allowed=LEGAL)
    add_search_folder(None)
    importlib.invalidate_caches()
    _importing.append(name)
    try:
        return importlib.import_module(name)
    except SettingsError:  # of check_not_importing
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(error, name, full) from error
        near = nearest_match(name, _modules_beside(name))
        raise _error(
            f"module '{name}' does not exist",
            full,
            allowed=LEGAL,
            did_you_mean=near and f"{near}:{class_name}",
        ) from None
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise _broken(error, name, full) from error
    finally:
        _importing.pop()


def _is_file(path: Path, class_name: str) -> SettingsError:
    """The error for a path instead of a module name."""
    stem = path.with_suffix("")
    dotted = ".".join(stem.parts)
    is_below = not path.is_absolute() and ".." not in path.parts
    near = f"{dotted if is_below else stem.name}:{class_name}"
    return _error(
        f"'{path}' is a file, not the name of a module",
        f"{path}:{class_name}",
        allowed=LEGAL,
        did_you_mean=near,
        fix=None if is_below else f"--model {near} --set {FOLDER}={path.parent}",
    )


def _broken(error: BaseException, name: str, full: str) -> SettingsError:
    """The error for a module that raises on import, with the user's last line."""
    last_line = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        place = _where(error.filename, error.lineno)
    else:
        ours = [f"{environment.ROOT / name}{os.sep}" for name in _PINNED]
        others = ("<frozen", *_installed(), *ours)
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if not frame.filename.startswith(others)]
        place = _where(theirs[-1].filename, theirs[-1].lineno) if theirs else None
    return _error(f"module '{name}' cannot be imported: {last_line}", full, where=place)


def _is_ours(module: ModuleType) -> bool:
    """Whether a module is of this program, such as the main module of a rank."""
    return Path(module.__file__ or "").absolute().is_relative_to(environment.ROOT / "launcher")


def _installed() -> tuple[str, ...]:
    """The folders of installed packages, and of Python's library."""
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


def _missing(cls: type) -> list[str]:
    named = [*Task.__annotations__, *(n for n, v in vars(Task).items() if inspect.isfunction(v))]
    abstract = getattr(cls, "__abstractmethods__", frozenset[str]())
    missing = [n for n in named if n[0] != "_" and (not hasattr(cls, n) or n in abstract)]
    return [*missing, *sorted(abstract - set(missing))]


def _where(file: str | None, line: int | None) -> str | None:
    """A file as one would type it from here, and a line of it."""
    if file is None:
        return None
    path = from_here(Path(file))
    return path if line is None else f"{path}:{line}"


def _error(what: str, name: str, **parts: Any) -> SettingsError:
    return SettingsError.of(what, key=KEY, value=name, **parts)


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
    found = tuple(getattr(cls, "stages", ()))
    named = [one.name for one in found if isinstance(one, Stage)]
    if len(set(named)) < len(found):
        allowed = "each a models.catalog.Stage of another name"
        what = f"{cls.__name__}.stages is not understood"
        raise SettingsError([_diagnostic(cls, what, allowed)])
    model, data = task_config(name).Model.model_fields, task_config(name).Data.model_fields
    known = [*(f"model.{key}" for key in model), *(f"data.{key}" for key in data)]
    diagnostics = []
    for one in found:
        if one.loads not in (None, *known):
            what = f"stage {one.name} loads {one.loads}, which is not a setting"
            diagnostics.append(_diagnostic(cls, what, ", ".join(known)))
    for other in _mapping(cls, _STAGES):
        if other not in named:
            what = f"{cls.__name__}.{_STAGES} has settings of '{other}', which is not a stage"
            diagnostics.append(_diagnostic(cls, what, ", ".join(named)))
    if diagnostics:
        raise SettingsError(diagnostics)
    return found


def _declared(cls: type, name: str, ours: tuple[str, ...]) -> type[BaseModel]:
    """The class of settings within a task. Raises SettingsError if it is invalid."""
    found = getattr(cls, name, Nothing)
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        what = f"{cls.__name__}.{name} is not a pydantic BaseModel"
        raise SettingsError([_diagnostic(cls, what, "a BaseModel")])
    diagnostics = [
        _diagnostic(found, what, _LEGAL)
        for key, info in found.model_fields.items()
        for what in _invalid_fields(f"{name}.{key}", info, ours)
    ]
    if diagnostics:
        raise SettingsError(diagnostics)
    try:
        create_model(name, __base__=found, __cls_kwargs__={"validate_default": True})()
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, (name, *first["loc"])))
        what = f"the default of {cls.__name__}.{key} is invalid: {first['msg']}"
        raise SettingsError([_diagnostic(found, what)]) from None
    return found


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
    found = getattr(cls, name, {})
    by_name = name in _BY_NAME
    inner = found.values() if isinstance(found, Mapping) and by_name else [{}]
    mappings = (found, *inner)
    is_valid = all(isinstance(one, Mapping) for one in mappings)
    if not is_valid or not all(isinstance(key, str) and key for one in mappings for key in one):
        allowed = 'settings by key, for example {"optim": {"lr": 1e-3}}'
        if by_name:
            allowed = f'settings of each {_BY_NAME[name]}, as {{"small": {{"model.width": 8}}}}'
        what = f"{cls.__name__}.{name} is not understood"
        raise SettingsError([_diagnostic(cls, what, allowed)])
    return found


def _block(cls: type, name: str, *keys: str) -> Block:
    """A mapping of the class, with the lines of its values."""
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
    """The value of `key` in a dict literal, and its line."""
    if isinstance(tree, ast.Dict):
        for written, behind in zip(tree.keys, tree.values, strict=True):
            if isinstance(written, ast.Constant) and written.value == key:
                return behind, written.lineno
    return None, line


def _source(cls: type, name: str) -> tuple[str, ast.expr | None, int]:
    """The file that gives the class its attribute `name`, the expression there, and its line."""
    owner = next((one for one in cls.__mro__ if name in vars(one)), cls)
    place = class_location(owner)
    file, _, line = place.rpartition(":")
    try:
        tree = ast.parse(Path(inspect.getsourcefile(owner) or "").read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        return place, None, 1
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == owner.__name__:
            for one in node.body:
                if isinstance(one, ast.Assign | ast.AnnAssign):
                    targets = one.targets if isinstance(one, ast.Assign) else [one.target]
                    if name in (getattr(target, "id", None) for target in targets):
                        return file, one.value, one.lineno
    return (file, None, int(line)) if line.isdigit() else (place, None, 1)


def _diagnostic(cls: type, what: str, allowed: str | None = None) -> Diagnostic:
    return Diagnostic(what, key=KEY, where=class_location(cls), allowed=allowed)


def task_class(family: str) -> Callable[[Any, Any, Context], Task]:
    """What builds the task from the sections `model` and `data`, and a context. Imports torch.

    Raises SettingsError if a custom task cannot be used.
    """
    if is_custom(family):
        return load_task_class(family)
    module, _, name = FAMILIES[family].task.partition(":")
    built: Callable[[Any, Any, Context], Task] = getattr(importlib.import_module(module), name)
    return built
