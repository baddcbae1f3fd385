"""The noise control: on data without information, a metric better than chance shows a leak."""

from __future__ import annotations

import math
from collections.abc import Mapping

from training.callbacks.base import Emit, Numbers
from training.stop_reason import StopReason, failed

_BOUNDS = {"min": "at least", "max": "at most"}


def check(bands: Mapping[str, Numbers], metrics: Numbers, report: Emit) -> StopReason | None:
    """A failure of the run if a metric is not at chance: the model found information elsewhere.

    A band has "min", "max" and "chance", as far as they are known. Reports an event "control" for
    each metric that has a bound, with a text such as `iou 0.31, not at most 0.13 (chance 0.1)`.
    """
    leaks = []
    for name, band in bands.items():
        bounds = [f"{text} {band[key]:.4g}" for key, text in _BOUNDS.items() if key in band]
        if not bounds or name not in metrics:
            continue
        value = metrics[name]
        # NaN is outside.
        at_chance = band.get("min", -math.inf) <= value <= band.get("max", math.inf)
        chance = f" (chance {band['chance']:.4g})" if "chance" in band else ""
        text = f"{name} {value:.4g}, {'' if at_chance else 'not '}{' and '.join(bounds)}{chance}"
        report("control", {"text": text, "metric": name, "value": value, "at_chance": at_chance, **band})
        if not at_chance:
            leaks.append(text)
    return failed(f"the noise control leaks: {'; '.join(leaks)}") if leaks else None
