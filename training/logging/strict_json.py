"""Strict JSON, which every parser accepts: no NaN, no infinity, floats at full precision."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
