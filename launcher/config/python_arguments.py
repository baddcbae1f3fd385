"""The arguments of a Python call: their types, values as text, and errors that name them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from launcher.base.diagnostics import Diagnostic, SettingsError, nearest_match
from launcher.base.disk import SHOWN, problem_of
from launcher.config.input_errors import nearest_key
from launcher.config.schema import FIRST_RUN, setting_infos
from launcher.config.settings_file import MAPPINGS

KINDS: dict[str, tuple[type, ...]] = {
    **{"model": (str, type), "mode": (str,), "engine": (str,), "nproc": (int,)},
    **{"config": (str, PathLike, Sequence), "out": (str, PathLike), "settings": (Mapping,)},
    **{"console": (bool,), "resume": (str, int, PathLike), "reset": (str, Sequence)},
}
"""The arguments of `train`, and their types."""
_OF_KEYS = {"model.family": "model", "model.size": "model", "mode": "mode", "engine.name": "engine"}
_OF_KEYS |= {"engine.nproc": "nproc", "--input": "inputs"}
"""The arguments that have another name than the setting or the option."""
EVALUATE = "Run.evaluate"
"""The call with an argument for the data."""


def as_arguments(diagnostics: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """The diagnostics of a Python call, such as `train`: what was typed is one of its arguments."""
    names, typed = _OF_KEYS | ({"data.path": "data"} if call == EVALUATE else {}), []
    for one in diagnostics:
        if (one.where or "").startswith(("--", "command line", "the command line")):
            name = names.get(one.key or "")
            if one.key is not None and one.key.startswith("--"):
                name = name or one.key[2:].replace("-", "_")
            where = f"{call}({name}={one.value!r})" if name else _setting(call, one.key, one.value)
            one = replace(one, where=where if one.key else f"{call}()")
        typed.append(one)
    return typed


def _setting(call: str, key: str | None, value: Any) -> str:
    return f"{call}(settings={{{key!r}: {value!r}}})"


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key, from dotted or nested keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in MAPPINGS:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text_of(key: str, value: Any, call: str) -> str:
    """A value as the text after `--set KEY=`. Raises SettingsError for what is no setting."""
    if isinstance(value, str | PathLike):
        return str(value)

    def plain(value: Any) -> Any:
        """A path as text; a number of numpy or a tensor, or several, as those of Python."""
        return str(value) if isinstance(value, PathLike) else value.tolist()

    try:
        return json.dumps(value, default=plain)
    except (TypeError, AttributeError):  # no number
        raise SettingsError.of(
            f"{key} is of type {type(value).__name__}",
            key=key,
            where=_setting(call, key, value),
            allowed="text, numbers, true or false, None, and lists of them",
        ) from None


def check_types(given: Mapping[str, tuple[Any, tuple[type, ...]]], call: str, none: bool = True) -> None:
    """Raise SettingsError for arguments of another type than these, and impossible paths.

    `none`: or None.
    """
    wrong = []
    for name, (value, kind) in given.items():
        problem = None
        is_other = isinstance(value, bool) and bool not in kind
        if (value is not None or not none) and (is_other or not isinstance(value, kind)):
            problem = f"is of type {type(value).__name__}, not {' or '.join(t.__name__ for t in kind)}"
        elif name in ("config", "out", "resume", "folder"):
            several: Any = [value] if isinstance(value, str | PathLike | int) else value or ()
            problem = next(filter(None, (problem_of(str(path)) for path in several)), None)
        if problem:
            message = f"{name} {repr(value)[:SHOWN]} {problem}"
            wrong.append(Diagnostic(message, value=value, where=f"{call}({name}={value!r})"))
    if wrong:
        raise SettingsError(wrong)


def no_argument(name: str, value: object) -> Diagnostic:
    """The error of an argument that `train` lacks: most likely a setting."""
    argument, key = nearest_match(name, KINDS), nearest_key(name, setting_infos(FIRST_RUN[0]))
    fix = f"{argument}={value!r}" if argument else key and f"settings={{{key!r}: {value!r}}}"
    return Diagnostic(
        f"train has no argument {name!r}",
        value=value,
        where=f"train({name}={value!r})",
        allowed=", ".join(KINDS),
        did_you_mean=argument or key,
        fix=fix,
    )
