"""A change of a preset to one setting, applied to its value."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config.settings_file import CHANGES

_LENGTH = re.compile(r"^([0-9]+(?:\.[0-9]+)?) ?(%|epochs?)$")


def apply_change(change: Any, default: Any, sizes: Sequence[str]) -> tuple[Any, str]:
    """The default after `change`, and how it follows: `{scale: 0.5} of 3`; null stays null.

    A value that is no change replaces the default.
    Whole numbers are rounded, to 1 at least unless they were 0; `sizes` are the family's, from
    small to large: smaller_of takes the first name that is smaller than the default.
    """
    if not is_change(change):
        return change, ""
    value = default
    if default is not None:
        if "scale" in change:
            value = _scaled(default, change["scale"])
        if "at_least" in change:
            value = max(value, change["at_least"])
        if "at_most" in change:
            value = min(value, change["at_most"])
        for name in change.get("smaller_of", ()):
            if name in sizes[: sizes.index(default)]:
                value = name
                break
    return value, f"{plain(change)} of {plain(default)}"


def is_change(value: Any) -> bool:
    """Whether a mode's value is a change to the default."""
    return isinstance(value, dict) and bool(value) and CHANGES.issuperset(value)


def _scaled(default: Any, factor: float) -> Any:
    """A number, or a length such as `2 epochs`, times `factor`."""
    if isinstance(default, str):
        match = _LENGTH.match(default)
        assert match is not None
        number = f"{float(match[1]) * factor:g}"
        if match[2] == "%":
            return f"{number}%"
        return f"{number} epoch" if number == "1" else f"{number} epochs"
    if isinstance(default, float):
        # 0.1 × 0.75 is 0.075, not 0.07500000000000001
        return float(f"{default * factor:.12g}")
    return max(1, math.floor(default * factor + 0.5)) if default else 0
