"""A change of a preset to one setting, applied to its value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config.presets import BOUNDS, LENGTH, is_change


def apply_change(change: Any, default: Any, sizes: Sequence[str]) -> tuple[Any, str]:
    """The default after `change`, and how it follows: `3 × 0.5, rounded to 2`; null stays null.

    A value that is no change replaces the default.
    Whole numbers are rounded, to 1 at least unless they were 0; `sizes` are the family's, from
    small to large: smaller_of takes the first name that is smaller than the default.
    """
    if not is_change(change):
        return change, ""
    if default is None:
        return None, "nothing to change"
    value = default
    texts = []
    factor = change.get("scale")
    if factor is not None:
        value = _scaled(default, factor)
        text = f"{plain(default)} × {factor:.6g}"
        if isinstance(default, int) and value != default * factor:
            text += f", rounded to {value}"
        texts.append(text)
    for word, bound in (("at_least", max), ("at_most", min)):
        if word in change:
            value = bound(value, change[word])
            texts.append(f"{BOUNDS[word]} {change[word]}")
    if "smaller_of" in change:
        text = "no smaller size"
        for name in change["smaller_of"]:
            if name in sizes[: sizes.index(value)]:
                text = f"smaller than {plain(default)}"
                value = name
                break
        texts.append(text)
    return value, ", ".join(texts)


def _scaled(default: Any, factor: float) -> Any:
    """A number, or a length such as `2 epochs`, times `factor`."""
    if isinstance(default, str):
        match = LENGTH.match(default)
        assert match is not None
        number = f"{float(match[1]) * factor:g}"
        if match[2] == "%":
            return f"{number}%"
        return f"{number} epoch" if number == "1" else f"{number} epochs"
    if isinstance(default, float):
        # 0.1 × 0.75 is 0.075, not 0.07500000000000001
        return float(f"{default * factor:.12g}")
    return max(1, math.floor(default * factor + 0.5)) if default else 0
