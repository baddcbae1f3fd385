"""The arguments of a Python call: their types, values as text, and errors that name them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError
from launcher.base.disk import SHOWN, problem_of
from launcher.config.argument_errors import nearest_option
from launcher.config.options import BY_FLAG, OPTIONS
from launcher.config.provenance import MAPPINGS

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


def as_arguments(diagnostics: Iterable[Diagnostic], call: str) -> list[Diagnostic]:
    """The diagnostics of a Python call, such as `train`: they name its arguments."""
    return [_of_call(diagnostic, call) for diagnostic in diagnostics]


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

    def name(match: re.Match[str]) -> str:
        flag = match[0].partition(" ")[0]
        option = BY_FLAG.get(flag)
        key = option.key if option is not None else None
        return "settings" if flag == "--set" else _ARGUMENTS.get(flag) or key or flag

    return _FLAG.sub(name, text)


def _arguments(text: str) -> str | None:
    """Options with values as arguments: `engine='zero2', settings={'optim.lr': 0.1}`.

    None: the text is something else.
    """
    if not text.startswith("--"):
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    if text.startswith("--set ") and " --" not in text:
        is_quoted = len(words) == 2 and "'" in text  # origins have values without quotes
        words = words if is_quoted else text.split(" ", 1)
    arguments, settings = list[str](), list[str]()
    for flag, value in zip(words[::2], words[1::2], strict=False):
        option = BY_FLAG.get(flag)
        key = option.key if option is not None else None
        if flag == "--set" and "=" in value:
            key, _, value = value.partition("=")
        elif flag in _ARGUMENTS:
            arguments.append(f"{_ARGUMENTS[flag]}={value if flag == '--nproc' else repr(value)}")
            continue
        if key is None:
            return None
        try:
            settings.append(f"{key.strip()!r}: {json.loads(value)!r}")
        except ValueError:
            settings.append(f"{key.strip()!r}: {value!r}")
    if len(words) % 2:
        return None
    return ", ".join([*arguments, *([f"settings={{{', '.join(settings)}}}"] if settings else [])])


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
            where=f"{call}(settings={{{key!r}: {value!r}}})",
            allowed="text, numbers, true or false, None, and lists of them",
        ) from None


def check_types(
    given: Mapping[str, tuple[Any, tuple[type, ...]]], call: str, none: bool = True
) -> None:
    """Raise SettingsError for arguments of another type than these, and impossible paths.

    `none`: or None.
    """
    wrong = [
        Diagnostic(
            f"{name} {value!r} is of type {type(value).__name__}",
            value=value,
            where=f"{call}({name}={value!r})",
            allowed=" or ".join(cls.__name__ for cls in kind),
        )
        for name, (value, kind) in given.items()
        if (value is not None or not none)
        and (not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind))
    ]
    for name, (value, kind) in given.items():
        if PathLike in kind and name in ("config", "out", "resume", "folder"):
            paths = [value] if isinstance(value, str | PathLike) else value
            for path in paths if isinstance(paths, Sequence) else ():
                if problem := problem_of(str(path)):
                    where = f"{call}({name}={str(path)!r})"
                    message = f"{name} {str(path)[:SHOWN]!r} {problem}"
                    wrong.append(Diagnostic(message, value=str(path), where=where))
    if wrong:
        raise SettingsError(wrong)


def no_argument(name: str, value: object) -> Diagnostic:
    """The error of an argument that `train` lacks: most likely a setting."""
    flag = f"--{name.replace('_', '-')}"
    suggestion, fix = nearest_option(OPTIONS, flag, None if value is True else str(value))
    return Diagnostic(
        f"train has no argument {name!r}",
        value=value,
        where=f"train({name}={value!r})",
        allowed="model, mode, engine, nproc, config, out, settings, console, resume, reset",
        did_you_mean=suggestion,
        fix=fix,
    )
