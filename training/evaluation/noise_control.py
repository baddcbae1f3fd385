"""The noise control: on data without information, a metric better than chance shows a leak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.stop_reason import StopReason, failed

if TYPE_CHECKING:
    from models.base import Task

Report = Callable[[str, Mapping[str, object]], None]
"""Takes an event: kind and facts."""
_BOUNDS = {"min": "at least", "max": "at most"}


@dataclass(frozen=True)
class ControlResult:
    """One metric that must be at chance."""

    metric: str
    value: float
    band: Mapping[str, float]
    """"min", "max" and "chance", as far as they are known."""

    @property
    def is_at_chance(self) -> bool:
        """Whether the value is inside the band; NaN is outside."""
        low, high = self.band.get("min"), self.band.get("max")
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def __str__(self) -> str:
        """For example `val_iou 0.31, not at most 0.13 (chance 0.1)`."""
        no = "" if self.is_at_chance else "not "
        bounds = [
            f"{text} {self.band[name]:.4g}" for name, text in _BOUNDS.items() if name in self.band
        ]
        chance = f" (chance {self.band['chance']:.4g})" if "chance" in self.band else ""
        return f"{self.metric} {self.value:.4g}, {no}{' and '.join(bounds)}{chance}"

    def facts(self) -> dict[str, object]:
        """The event "control"."""
        known = {"metric": self.metric, "value": self.value, "at_chance": self.is_at_chance}
        return {"text": str(self), **known, **self.band}


def control_results(task: Task, metrics: Mapping[str, float]) -> list[ControlResult]:
    """The result of each defined metric that has a band; empty unless the data is a control."""
    return [
        ControlResult(name, metrics[name], band)
        for name, band in task.facts().get("control", {}).items()
        if _BOUNDS.keys() & band.keys() and name in metrics
    ]


def check(task: Task, metrics: Mapping[str, float], report: Report) -> StopReason | None:
    """A failure of the run if a metric is not at chance: the model found information elsewhere.

    Reports an event "control" for each metric that has a band.
    """
    results = control_results(task, metrics)
    for result in results:
        report("control", result.facts())
    leaks = [str(result) for result in results if not result.is_at_chance]
    return failed(f"the noise control leaks: {'; '.join(leaks)}") if leaks else None
