"""Errors, warnings and notes for the user, as data and as the lines that are printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from gearshift.launcher.base.redaction import redact
from gearshift.training.logging.printable import printable

Error = TypeVar("Error", bound="SettingsError")
PROGRAM = "python -m launcher"
MANY = 12
"""With more options than this, a message names the command that lists them."""
ON = ("true", "on", "yes", "y", "1")
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
    """What to do, with the very line to type: `precision: bf16`."""
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
        """The error of a single diagnostic; `parts` are its fields besides the message."""
        return cls([Diagnostic(message, **parts)])


class FetchError(Exception):
    """The network, a server or the disk failed in spite of all retries (exit code 1)."""

    def __init__(self, message: str, url: str, fix: str) -> None:
        self.diagnostic = Diagnostic(message, where=url, fix=fix)
        super().__init__(render([self.diagnostic]).removeprefix("error: "))


def render(diagnostics: Sequence[Diagnostic]) -> str:
    """The diagnostics as printed lines, one block each."""
    lines = list[str]()
    for one in diagnostics:
        lines.append(f"{one.severity}: {one.message}")
        where = one.where
        if where is not None and one.overrides is not None:
            where += f" (overrides {plain(one.overrides[0])} from {one.overrides[1]})"
        parts = {
            "where": where,
            "allowed": one.allowed,
            "did you mean": one.did_you_mean,
            "fix": one.fix,
        }
        lines += [f"  {label:<12}  {text}" for label, text in parts.items() if text is not None]
    return printable(redact("\n".join(lines)))


def unknown(flag: str, name: str, names: Iterable[str], **parts: Any) -> Diagnostic:
    """The error about the argument `name` of an option, which is none of `names`; `parts` replace fields."""
    options = [*names]
    near = nearest_match(name, options)
    fields: dict[str, Any] = {
        "message": f"unknown {flag} '{name}'",
        "where": f"command line: {flag} {name}",
    }
    fields |= {
        "allowed": ", ".join(options),
        "did_you_mean": near,
        "fix": near and f"{flag} {near}",
    }
    return Diagnostic(value=name, **{**fields, **parts})


def as_json(diagnostics: Sequence[Diagnostic]) -> list[dict[str, Any]]:
    """The diagnostics for JSON: one object each, with all fields but the order."""
    names = ("value", "where")
    return [
        _redacted(
            {**asdict(d), "overrides": d.overrides and dict(zip(names, d.overrides, strict=True))}
        )
        for d in diagnostics
    ]


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
        return "true" if value else "false"
    if isinstance(value, float) and value and abs(value) <= 1e-3:
        from decimal import Decimal  # slow to import

        return f"{Decimal(repr(value)):e}"  # 1e-4
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return shown(value) if isinstance(value, list | tuple | dict) else str(value)


def from_here(path: Path) -> str:
    """A path as one would type it in the working directory."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def nearest_match(word: str, options: Iterable[str]) -> str | None:
    """The option that is very like `word`, or None; ignores case, `-` and `_`."""
    import difflib  # slow to import, and only needed for errors

    folded = {fold(option): option for option in options}
    typed = fold(word)
    close = difflib.get_close_matches(typed, folded, n=5, cutoff=0.65)
    # Two swapped letters are the most frequent typo, and difflib ranks it low.
    swapped = [option for option in close if sorted(option) == sorted(typed)]
    return next((folded[option] for option in (*swapped, *close)), None)


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
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}" + ("" if number == 1 else plural)


def _redacted(value: Any) -> Any:
    """Plain JSON without the secrets of the URLs in it."""
    if isinstance(value, list | tuple):
        return [_redacted(item) for item in value]
    if isinstance(value, dict):
        return {key: _redacted(item) for key, item in value.items() if key != "order"}
    return redact(value) if isinstance(value, str) else value
