"""The arguments of a Python call: their types, values as text, and errors that name them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.config.argument_errors import nearest_option
from launcher.config.options import BY_FLAG, OPTIONS

_NAMES = (
    *("model", "mode", "engine", "config", "out", "resume", "reset", "nproc"),
    *("split", "checkpoint", "format", "input", "temperature", "max-tokens", "top-p", "top-k"),
)
_RENAMED = {"input": "inputs"}
_ARGUMENTS = {f"--{name}": _RENAMED.get(name, name.replace("-", "_")) for name in _NAMES}
"""The argument of each option that is one."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*(?: auto\|DIR\|STEP)?")
EVALUATE = "Run.evaluate"
"""The call with an argument for the data."""
_DATA = re.compile(r"settings=\{'data\.path': (.*?)\}")
_EXPORT = f"{PROGRAM} export RUN "
_RESUME = re.compile(rf"{PROGRAM} resume (?!-)(\S+) ?(.*)")
_SOURCE = re.compile(r"^(?:the )?command line:? ")


def as_arguments(error: SettingsError, call: str) -> SettingsError:
    """`error` as one of a Python call, such as `train`: it names its arguments."""
    return SettingsError([_of_call(diagnostic, call) for diagnostic in error.diagnostics])


def warnings_of(warnings: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """As `as_arguments`, for warnings."""
    return [_of_call(diagnostic, call) for diagnostic in warnings]


def _of_call(diagnostic: Diagnostic, call: str) -> Diagnostic:
    where, fix = _where(diagnostic.where, call), _in_python(diagnostic.fix)
    if call == EVALUATE:
        where, fix = (text and _DATA.sub(r"data=\1", text) for text in (where, fix))
    return replace(
        diagnostic,
        message=_named(diagnostic.message) or "",
        where=where,
        allowed=_named(diagnostic.allowed),
        did_you_mean=_in_python(diagnostic.did_you_mean),
        fix=fix,
    )


def _where(text: str | None, call: str) -> str | None:
    if text is None:
        return None
    plain = _SOURCE.sub("", text)
    if (arguments := _arguments(plain)) is not None:
        return f"{call}({arguments})"
    is_command = plain != text or re.match(r"(resume|evaluate|predict|export)\b", plain)
    return f"{call}()" if is_command and "--" not in plain else _named(plain)


def _in_python(text: str | None) -> str | None:
    """A line to type as arguments; another whole command than `resume` stays as it is."""
    text = text and text.removeprefix(_EXPORT)
    if text is None:
        return text
    parts = text.split("  ")
    if (match := _RESUME.fullmatch(parts[0])) is not None:
        arguments = _arguments(match[2]) if match[2] else ""
        if arguments is not None:
            return "  ".join([f"launcher.open_run({match[1]!r}).resume({arguments})", *parts[1:]])
    if PROGRAM in text:
        return text
    return "  ".join(
        _arguments(part) or _named(part.removeprefix("--set ")) or "" for part in parts
    )


def _named(text: str | None) -> str | None:
    """`text` with the arguments instead of the options in it."""
    if text is None or PROGRAM in text:
        return text
    return _FLAG.sub(lambda match: _name(match[0].partition(" ")[0]), text)


def _name(flag: str) -> str:
    option = BY_FLAG.get(flag)
    if flag == "--set":
        return "settings"
    return _ARGUMENTS.get(flag) or (option.key if option and option.key else flag)


def _arguments(text: str) -> str | None:
    """Options with values as arguments: `engine='zero2', settings={'optim.lr': 0.1}`.

    None: the text is something else.
    """
    if not text.startswith("--"):
        return None
    words = _words(text)
    arguments, settings = dict[str, str](), dict[str, str]()
    for flag, value in zip(words[::2], words[1::2], strict=False):
        option = BY_FLAG.get(flag)
        if flag == "--set" and "=" in value:
            key, _, setting_value = value.partition("=")
            settings[key.strip()] = setting_value
        elif flag in _ARGUMENTS:
            arguments[_ARGUMENTS[flag]] = value if flag == "--nproc" else repr(value)
        elif option is not None and option.key is not None:
            settings[option.key] = value
        else:
            return None
    if len(words) % 2:
        return None
    return ", ".join([f"{name}={value}" for name, value in arguments.items()] + _rendered(settings))


def _words(text: str) -> list[str]:
    if text.startswith("--set ") and " --" not in text:
        return ["--set", _unquoted(text.removeprefix("--set "))]
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def _unquoted(text: str) -> str:
    """What a shell makes of a quoted word; origins have values without quotes."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    return words[0] if len(words) == 1 and "'" in text else text


def _rendered(settings: Mapping[str, str]) -> list[str]:
    if not settings:
        return []
    pairs = ", ".join(f"{key!r}: {_value(text)}" for key, text in settings.items())
    return [f"settings={{{pairs}}}"]


def _value(text: str) -> str:
    try:
        return repr(json.loads(text))
    except ValueError:
        return repr(text)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by dotted key, from dotted or nested keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" != "promise":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text_of(key: str, value: Any, call: str) -> str:
    """A value as the text after `--set KEY=`. Raises SettingsError for what is no setting."""
    try:
        return (
            str(value) if isinstance(value, str | PathLike) else json.dumps(value, default=_plain)
        )
    except (TypeError, AttributeError):
        raise SettingsError.of(
            f"{key} is of type {type(value).__name__}",
            key=key,
            where=f"{call}(settings={{{key!r}: {value!r}}})",
            allowed="text, numbers, true or false, None, and lists of them",
        ) from None


def _plain(value: Any) -> Any:
    """A path as text; a number of numpy or a tensor, or several, as those of Python."""
    if isinstance(value, PathLike):
        return str(value)
    return value.tolist()  # AttributeError: no number


def check_types(
    given: Mapping[str, tuple[Any, tuple[type, ...]]], call: str, none: bool = True
) -> None:
    """Raise SettingsError for arguments of another type than these; `none`: or None."""
    wrong = [
        Diagnostic(
            f"{name} {value!r} is of type {type(value).__name__}",
            value=value,
            where=f"{call}({name}={value!r})",
            allowed=" or ".join(cls.__name__ for cls in kind),
        )
        for name, (value, kind) in given.items()
        if (value is not None or not none) and not _is_of(value, kind)
    ]
    if wrong:
        raise SettingsError(wrong)


def no_argument(name: str, value: object) -> Diagnostic:
    """The error of an argument that `train` lacks: most likely a setting, or a word of a tool."""
    flag = f"--{name.replace('_', '-')}"
    suggestion, fix = nearest_option(OPTIONS, flag, None if value is True else str(value), [])
    return Diagnostic(
        f"train has no argument {name!r}",
        value=value,
        where=f"train({name}={value!r})",
        allowed="model, mode, engine, nproc, config, out, settings, console, resume, reset",
        did_you_mean=suggestion,
        fix=fix,
    )


def _is_of(value: object, kind: tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (bool in kind or not isinstance(value, bool))
