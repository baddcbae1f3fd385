"""What a mode may write in the place of a value: a change to the family's default."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.base.diagnostics import plain

CHANGE_FORMS = "a value, or {scale: x}, {at_least: x}, {at_most: x}, {smaller_of: [names]}"
_WORDS = {"scale", "at_least", "at_most", "smaller_of"}
_BOUNDS = {"at_least": "at least", "at_most": "at most"}
_LENGTH = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?(%|epochs?)$")


def is_change(value: Any) -> bool:
    """Whether a mode's value is a change to the default, and not a value of its own."""
    return isinstance(value, dict) and bool(value) and set(value) <= _WORDS


def apply_change(change: Mapping[str, Any], default: Any, sizes: Sequence[str]) -> Any:
    """The value that `change` makes of `default`; a default of none stays none.

    Whole numbers are rounded, to 1 at least unless they were 0; `sizes` are the family's, from
    small to large: smaller_of takes the first name that is smaller than the default.
    """
    if default is None:
        return None
    value = default
    if "scale" in change:
        value = _scaled(value, change["scale"])
    if "at_least" in change:
        value = max(value, change["at_least"])
    if "at_most" in change:
        value = min(value, change["at_most"])
    if "smaller_of" in change:
        below = sizes[: sizes.index(value)]
        value = next((name for name in change["smaller_of"] if name in below), value)
    return value


def describe_change(change: Mapping[str, Any], default: Any, value: Any) -> str:
    """How `change` came to `value` from `default`, for a person: `3 × 0.5, rounded to 2`."""
    if default is None:
        return "nothing to change"
    texts = []
    if "scale" in change:
        scaled = _scaled(default, change["scale"])
        exact = not isinstance(default, int) or scaled == default * change["scale"]
        shown = f"{plain(default)} × {change['scale']:.6g}"
        texts.append(shown if exact else f"{shown}, rounded to {scaled}")
    texts += [f"{word} {change[key]}" for key, word in _BOUNDS.items() if key in change]
    if "smaller_of" in change:
        texts.append(
            f"smaller than {plain(default)}" if value != default else "there is none smaller"
        )
    return ", ".join(texts)


def change_text(change: Mapping[str, Any]) -> str:
    """A change as a table shows it: `× 0.5`, `at least 1`."""
    texts = [f"× {change['scale']:.6g}"] if "scale" in change else []
    texts += [f"{word} {plain(change[key])}" for key, word in _BOUNDS.items() if key in change]
    if "smaller_of" in change:
        texts.append(f"{' or '.join(change['smaller_of'])}, where that is smaller")
    return ", ".join(texts)


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, int):
        return max(1, math.floor(value * factor + 0.5)) if value else 0
    if isinstance(value, float):
        return float(f"{value * factor:.12g}")  # 0.1 × 0.75 is 0.075, not 0.07500000000000001
    match = _LENGTH.match(value)
    if match is None:
        raise TypeError(f"{value!r} cannot be scaled")
    number = f"{float(match[1]) * factor:g}"
    if match[2] == "%":
        return f"{number}%"
    return f"{number} epoch" if number == "1" else f"{number} epochs"
