"""The noise control: a metric that is better than chance allows tells of a leak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.stop_reason import StopReason, failed

if TYPE_CHECKING:
    from models.base import Task

Tell = Callable[[str, Mapping[str, object]], None]
"""Hears an event: its kind and its facts."""
_BOUNDS = {"min": "at least", "max": "at most"}


@dataclass(frozen=True)
class ControlResult:
    """What became of one metric that must be at chance."""

    metric: str
    value: float
    band: Mapping[str, float]
    """"min", "max" and "chance", where they are known."""

    @property
    def is_at_chance(self) -> bool:
        """Inside the band; a value that is no number is outside."""
        low, high = self.band.get("min"), self.band.get("max")
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def __str__(self) -> str:
        """Such as `val_iou 0.31, not at most 0.13 (chance 0.1)`."""
        no = "" if self.is_at_chance else "not "
        told = [
            f"{word} {self.band[name]:.4g}" for name, word in _BOUNDS.items() if name in self.band
        ]
        chance = f" (chance {self.band['chance']:.4g})" if "chance" in self.band else ""
        return f"{self.metric} {self.value:.4g}, {no}{' and '.join(told)}{chance}"

    def facts(self) -> dict[str, object]:
        """For events.jsonl, and in words for a person."""
        kept = {"metric": self.metric, "value": self.value, "at_chance": self.is_at_chance}
        return {"text": str(self), **kept, **self.band}


def judge(task: Task, metrics: Mapping[str, float]) -> list[ControlResult]:
    """What became of each metric that has a band; nothing unless the data is a noise control.

    Raises KeyError where a metric that has a band was not measured.
    """
    return [
        ControlResult(name, metrics[name], band)
        for name, band in task.facts().get("control", {}).items()
        if _BOUNDS.keys() & band.keys()
    ]


def ending(task: Task, metrics: Mapping[str, float], tell: Tell) -> StopReason | None:
    """A fault of the run where a metric is not at chance: it learnt from something else.

    `tell` hears an event for each metric that has a band.
    """
    verdicts = judge(task, metrics)
    for score in verdicts:
        tell("control", score.facts())
    leaks = [str(score) for score in verdicts if not score.is_at_chance]
    return failed(f"the noise control leaks: {'; '.join(leaks)}") if leaks else None
