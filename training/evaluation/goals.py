"""Goals and targets that the user names, and the bands of noise of a family's metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

from gearshift.models.base import Goal
from gearshift.training.callbacks.base import Emit, Numbers, StopReason, failed
from gearshift.training.evaluation.early_stopping import Direction, Target
from gearshift.training.settings import SettingError

_DIRECTIONS = ("min", "max")
_BOUNDS = {"min": "at least", "max": "at most"}


def target_of(target: Target, goal: Goal, names: list[str]) -> Target:
    """The target of `stop.at` with its direction, which `=` takes from the `goal`.

    Raises SettingError if the metric is not one of `names`.
    """
    _check_name("stop.at", target.text(), target.metric, names)
    directed = target.directed(goal)
    if directed is None:
        raise _undirected(
            "stop.at",
            target.text(),
            [target.text(sign) for sign in ("<=", ">=")],
        )
    return directed


def goal_of(written: str, family_goal: Goal, names: list[str]) -> Goal:
    """The goal written as `NAME min` or `NAME max`; the family's own metric needs no direction.

    Raises SettingError if NAME is not one of `names`.
    """
    name, _, direction = (text.strip() for text in written.strip().partition(" "))
    _check_name("eval.metric", written, name, names)
    if name == family_goal.metric and not direction:
        return family_goal
    if direction not in _DIRECTIONS:
        raise _undirected(
            "eval.metric",
            written,
            [f"{name} {each}" for each in _DIRECTIONS],
        )
    return Goal(name, cast(Direction, direction))


def _check_name(key: str, written: str, name: str, names: list[str]) -> None:
    if name not in names:
        raise SettingError(
            key,
            written,
            "names no metric of this task",
            ", ".join(names),
        )


def _undirected(key: str, written: str, allowed: list[str]) -> SettingError:
    text = " or ".join(f"'{each}'" for each in allowed)
    return SettingError(key, written, "does not say which way is better", text)


def check_noise(bands: Mapping[str, Numbers], metrics: Numbers, report: Emit) -> StopReason | None:
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
        text = f"{name} {value:.4g}, {'' if at_chance else 'not '}{' and '.join(bounds)}"
        if "chance" in band:
            text += f" (chance {band['chance']:.4g})"
        facts = {"text": text, "metric": name, "value": value, "at_chance": at_chance, **band}
        report("control", facts)
        if not at_chance:
            leaks.append(text)
    if not leaks:
        return None
    return failed(f"the noise control leaks: {'; '.join(leaks)}")
