"""How values are written: numbers with their units, printable text, and strict JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def duration(seconds: float) -> str:
    """`0.8 s`, `45 s`, `3m12s`, `2h05m`, `1d03h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}m{rest:02d}s"
    days, hours = divmod(hours, 24)
    if not days:
        return f"{hours}h{minutes:02d}m"
    return f"{days}d{hours:02d}h"


def counted(number: float, noun: str) -> str:
    """A number with its noun: `1 epoch`, `0.19 epochs`, `2 processes`."""
    text = f"{number:.4g}" if isinstance(number, float) else str(number)
    if text == "1":
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{text} {noun}{ending}"


def size(count: float) -> str:
    """Bytes: `512 B`, `1.2 GiB`."""
    for factor, unit in _BINARY:
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def amount(number: float) -> str:
    """Three digits and a letter: `12.3k`, `3.20M`; below a thousand `8.51`, `85.1`, `851`."""
    letter = ""
    for factor, unit in _SI:
        if number >= 0.9995 * factor:  # from 999.5, three digits would read 1000
            number /= factor
            letter = unit
            break
    if number >= 99.95:
        return f"{number:.0f}{letter}"
    if number >= 9.995:
        return f"{number:.1f}{letter}"
    return f"{number:.2f}{letter}"


def real(number: float) -> str:
    """A measured number: `3.2145`, and `1.2e-05` where four places would lose it."""
    if not math.isfinite(number) or number == 0 or 1e-3 <= abs(number) < 1e5:
        return f"{number:.4f}"
    return f"{number:.2e}"


def printable(text: str) -> str:
    """`text` with `�` for each character that is not shown, such as escape codes."""
    if text.isprintable():
        return text
    characters = []
    for c in text:
        if c.isprintable() or c in "\n\t":
            characters.append(c)
        else:
            characters.append(" " if c.isspace() else "�")
    return "".join(characters)


@contextmanager
def caught(tell: Callable[[str], object]) -> Iterator[None]:
    """Tell an error in one line, and continue: the border of trackers, and of a task's samples."""
    try:
        yield
    except Exception as error:
        tell(describe(error))


def describe(error: BaseException) -> str:
    """The type of `error` and the first line of its message."""
    return f"{type(error).__name__}: " + str(error).strip().partition("\n")[0]


_NONFINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def encode(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; numbers that JSON lacks as "NaN", "Infinity" and "-Infinity".

    So null only means unknown. `float()` parses the three strings. Source: the JSON mapping of
    Protocol Buffers. Paths become text, and numbers of numpy and torch plain numbers; other objects
    raise TypeError.
    """
    return json.dumps(
        _plain(value),
        indent=indent,
        ensure_ascii=False,
        allow_nan=False,
    )


def encode_bytes(value: Any, indent: int | None = None) -> bytes:
    """`encode` in UTF-8; lone surrogates become JSON escapes."""
    return encode(value, indent).encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else _NONFINITE[str(value)]
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    item = getattr(value, "item", None)
    return _plain(item()) if callable(item) else value
