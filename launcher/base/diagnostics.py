"""What is wrong with a person's words, as data, and as the lines they see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from launcher.base.redaction import cut

PROGRAM = "python -m launcher"
MANY = 12
"""Above so many legal options the message names the `list` command in their place."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, or worth a warning; the fields are rendered in this order."""

    what: str
    """One line without a full stop: the key and the value as typed, and what they are not."""
    key: str | None = None
    value: Any = None
    place: str | None = None
    """`mine.yaml, line 12: precision` or the option as typed; None: nobody typed it."""
    replaced: tuple[Any, str] | None = None
    """The value that this one replaces, and its place."""
    legal: str | None = None
    nearest: str | None = None
    mend: str | None = None
    """What to do, with the very line to type: `write  precision: bf16`."""
    severity: Literal["error", "warning"] = "error"
    order: tuple[int, int] | None = None
    """Which source, and which line of it: faults of one start are shown in this order."""


class SettingsError(Exception):
    """The person's words, settings or data cannot be used; nothing was written (exit code 2)."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: fault.order or (0, 0))
        super().__init__(render(self.faults))


def render(faults: Sequence[Fault]) -> str:
    """The lines for a person; one block a fault."""
    return cut("\n".join(line for fault in faults for line in _lines(fault)))


def as_json(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """The same for machines: one object a fault, with all of its fields."""
    told: list[dict[str, Any]] = _cut(
        [
            {
                "severity": fault.severity,
                "what": fault.what,
                "key": fault.key,
                "value": fault.value,
                "from": fault.place,
                "replaced": fault.replaced
                and {"value": fault.replaced[0], "from": fault.replaced[1]},
                "legal": fault.legal,
                "nearest": fault.nearest,
                "mend": fault.mend,
            }
            for fault in faults
        ]
    )
    return told


def shown(value: Any) -> str:
    """A value as YAML would have it, texts in quotes."""
    if isinstance(value, str):
        return f"'{value}'"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return plain(value)


def plain(value: Any) -> str:
    """A value as one types it: a text without quotes, null for nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value)
    return shown(value) if isinstance(value, list | tuple | dict) else str(value)


def nearest(word: str, options: Iterable[str]) -> str | None:
    """The option most like `word`, or None; case, `-` and `_` do not count."""
    import difflib  # only where something is wrong

    folded = {_fold(option): option for option in options}
    if match := folded.get(_fold(word)):
        return match
    close = difflib.get_close_matches(_fold(word), folded, n=5, cutoff=0.6)
    # Two letters that changed places are the commonest slip, and difflib ranks it low.
    same = [option for option in close if sorted(option) == sorted(_fold(word))]
    return folded[(same or close)[0]] if close else None


def listed(options: Sequence[str], command: str) -> str:
    """The options in a row; where they are too many, the command that lists them."""
    if len(options) > MANY:
        return f"{len(options)} names; see  {PROGRAM} {command}"
    return ", ".join(options)


def counted(number: int, noun: str) -> str:
    """`1 step`, `2 steps`, `3 processes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}" + ("" if number == 1 else plural)


def _number(value: float) -> str:
    """The shortest text that reads back as `value`: 1e-4, 0.25, 3."""
    if value and abs(value) <= 1e-3:
        short = next(s for p in range(18) if float(s := f"{value:.{p}e}") == value)
        mantissa, exponent = short.split("e")
        return f"{mantissa}e{int(exponent)}"
    return repr(value).removesuffix(".0")


def _cut(told: Any) -> Any:
    """Plain JSON without the secrets of the URLs in it."""
    if isinstance(told, list | tuple):
        return [_cut(one) for one in told]
    if isinstance(told, dict):
        return {key: _cut(one) for key, one in told.items()}
    return cut(told) if isinstance(told, str) else told


def _fold(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


def _lines(fault: Fault) -> Iterable[str]:
    yield f"{fault.severity}: {fault.what}"
    if fault.place is not None:
        replaces = ""
        if fault.replaced is not None:
            value, place = fault.replaced
            replaces = f"   (replaces {plain(value)} of {place})"
        yield f"  from     {fault.place}{replaces}"
    if fault.legal is not None:
        yield f"  legal    {fault.legal}"
    if fault.nearest is not None:
        yield f"  nearest  {fault.nearest}" + (f"; {fault.mend}" if fault.mend else "")
    elif fault.mend is not None:
        yield f"  mend     {fault.mend}"
