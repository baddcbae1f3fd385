"""Errors, warnings and notes for the user, as data and as the lines that are printed."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar

from gearshift.launcher.base import exit_codes
from gearshift.launcher.base.redaction import redact, redact_values
from gearshift.training.logging.encoding import printable

Error = TypeVar("Error", bound="SettingsError")
PROGRAM = "python -m launcher"
MANY = 12
"""With more options than this, a message names the command that lists them."""
ON = ("true", "on", "yes", "y", "1")
_PARTS = ("where", "allowed", "did_you_mean", "fix", "hint")
OFF = ("false", "off", "no", "n", "0")
"""What people type for a switch."""


@dataclass(frozen=True)
class Diagnostic:
    """An error or a warning for the user; the fields are rendered in this order."""

    message: str
    """One line without a full stop, with key and value as typed."""
    key: str | None = None
    value: Any = None
    where: str | None = None
    """`mine.yaml:12 precision`, or the option as typed; None: the user did not set it."""
    overrides: tuple[Any, str] | None = None
    """The value that this one overrides, and its origin."""
    allowed: str | None = None
    did_you_mean: str | None = None
    fix: str | None = None
    """What to type: options of this command, or another command. Empty: nothing for `replaces`."""
    replaces: tuple[str, ...] = ()
    """What the fix replaces: words as typed, or settings; besides options for the same setting."""
    hint: str | None = None
    """What to do where no command does it."""
    severity: Literal["error", "warning"] = "error"
    order: tuple[int, int] | None = None
    """Position of the source, and line in it: the order in which diagnostics are shown."""


class SettingsError(Exception):
    """Arguments, settings or data are invalid; nothing was written (exit code 2)."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = sorted(diagnostics, key=lambda diagnostic: diagnostic.order or (0, 0))
        super().__init__(render(self.diagnostics))

    @classmethod
    def of(cls: type[Error], message: str, **parts: Any) -> Error:
        """The error of a single diagnostic, with its `parts`."""
        return cls([Diagnostic(message, **parts)])


@contextmanager
def collecting(diagnostics: Iterable[Diagnostic]) -> Iterator[list[Diagnostic]]:
    """A block that may add errors to `diagnostics`. Raises SettingsError with all, and its own."""
    errors = list(diagnostics)
    try:
        yield errors
    except SettingsError as error:
        raise SettingsError([*errors, *error.diagnostics]) from error
    if errors:
        raise SettingsError(errors)


class CommandFailed(Exception):
    """What a command does with a saved run failed; `code` is the exit code."""

    def __init__(self, reason: str, code: int = exit_codes.FAILURE) -> None:
        super().__init__(reason)
        self.code = code


class FetchError(Exception):
    """The network, a server or the disk failed in spite of all retries (exit code 1)."""

    def __init__(self, message: str, url: str, hint: str) -> None:
        self.diagnostic = Diagnostic(message, where=url, hint=hint)
        super().__init__(render([self.diagnostic]).removeprefix("error: "))


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """The diagnostics as printed lines, one block each."""
    lines = []
    for diagnostic, following in zip_longest(diagnostics, diagnostics[1:]):
        lines.append(f"{diagnostic.severity}: {diagnostic.message}")
        parts = {name: getattr(diagnostic, name) for name in _PARTS}
        if parts["where"] and diagnostic.overrides:
            value, origin = diagnostic.overrides
            parts["where"] += f" (overrides {plain(value)} from {origin})"
        if following and following.fix == diagnostic.fix:
            parts["fix"] = None  # one command line mends both
        for name, text in parts.items():
            if text:
                lines.append(f"  {name.replace('_', ' '):<12}  {text}")
    return printable(redact("\n".join(lines)))


def say(text: str, stream: TextIO | None = None) -> None:
    """Print `text` on `stream`, stdout by default; one that is full or closed changes nothing."""
    from gearshift.training.logging.console_reporter import discarding

    stream = stream or sys.stdout
    with discarding(stream):
        print(printable(text), file=stream, flush=True)


def unknown(
    flag: str,
    name: str,
    names: Iterable[str],
    message: str = "",
    key: str | None = None,
    where: str = "",
) -> Diagnostic:
    """The error about the argument `name` of an option, which is none of `names`."""
    options = [*names]
    similar = nearest_match(name, options)
    return Diagnostic(
        message or f"unknown {flag} '{name}'",
        key=key,
        value=name,
        where=where or f"command line: {flag} {name}",
        allowed=", ".join(options),
        did_you_mean=similar,
        fix=similar and f"{flag} {similar}",
    )


def invalid(flag: str, text: str, allowed: str) -> Diagnostic:
    """The error about the value of an option."""
    return Diagnostic(
        f"{flag} '{text}' is invalid",
        key=flag,
        value=text,
        where=f"command line: {flag} {text}",
        allowed=allowed,
    )


def as_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    """The diagnostics for JSON: one object each, with the arguments of the fix as a list."""
    objects = []
    for diagnostic in diagnostics:
        fields = asdict(diagnostic)
        del fields["replaces"]
        if diagnostic.fix is not None:
            fields["fix"] = arguments(diagnostic.fix)
        if diagnostic.overrides:
            fields["overrides"] = dict(zip(("value", "where"), diagnostic.overrides, strict=True))
        fields.pop("order", None)
        objects.append(redact_values(fields))
    return objects


def arguments(fix: str) -> list[str]:
    """A fix for programs: its words, with this Python, whatever is on PATH."""
    words = shlex.split(fix)
    if words[:1] == ["python"]:
        words[0] = sys.executable
    return words


def shown(value: Any) -> str:
    """A value as in YAML, texts in quotes."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return plain(value)


def plain(value: Any) -> str:
    """A value as typed: texts without quotes, null for None."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if 0 < abs(value) <= 1e-3:
            from decimal import Decimal  # slow to import

            return f"{Decimal(repr(value)):e}"  # 1e-4
        return repr(value).removesuffix(".0")
    if isinstance(value, list | tuple | dict):
        return shown(value)
    return str(value)


def program_line(*words: object) -> str:
    """A command line of this program, as one would type it."""
    return f"{PROGRAM} {shlex.join(map(str, words))}"


def from_here(path: Path) -> str:
    """A path as one would type it in the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def nearest_match(word: str, options: Iterable[str]) -> str | None:
    """The option that `word` misspells, or None; ignores case and what separates words."""
    from gearshift.launcher.base.spelling import nearest  # only needed for errors

    return nearest(word, options)


def fold(word: str) -> str:
    """`word` without case, `-` and `_`, which matching ignores."""
    return word.lower().replace("-", "").replace("_", "")


def listed(options: Sequence[str], command: str) -> str:
    """The options in one line; the command that lists them if there are too many."""
    if len(options) > MANY:
        return f"{len(options)} names; see  {PROGRAM} {command}"
    return ", ".join(options)


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`, `3 processes`."""
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number} {noun}"
