"""What the ranks are told of an experience: its data, what is replayed, and how it is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CURVES = ("constant", "linear")
"""Curves that suit an experience as they are; of the others the last cycle of a cosine is left."""


@dataclass(frozen=True)
class Part:
    """One part of the data: the files of an experience, in a folder of their own."""

    data: Path
    kept: Path
    """What its task keeps: how it was split, and what was fitted on the first part."""


@dataclass(frozen=True)
class Lesson:
    """What is learnt by one start of the ranks."""

    number: int
    """Of the experience; 0: the data that the run began with."""
    parts: Sequence[Part]
    """The first data, then experiences that are replayed, then the one to learn."""
    how: Mapping[str, Any]
    """See `how`; empty for the first data."""
    ends_at: float | None = None
    """When to save and end, in seconds since the epoch; None: when it is learnt."""


def how(continual: Any) -> dict[str, Any]:
    """The settings of section `continual` that decide what an experience learns."""
    return {
        "replay": continual.replay,
        "epochs": continual.epochs,
        "max_steps": continual.max_steps,
        "lr_scale": continual.lr_scale,
        "warmup": continual.warmup,
        "min_samples": continual.min_samples,
    }


def view(settings: Any, lesson: Lesson | None) -> Any:
    """The settings as the ranks of a lesson read them: its data, and its own pace.

    An experience warms up to a part of the peak and comes down from there, by the run's own curve where
    that is constant or linear, else by a cosine.
    """
    if lesson is None:
        return settings
    found = _with(settings, "data", path=str(lesson.parts[0].data))
    if not lesson.number:
        return found
    how = lesson.how
    curve = settings.schedule.name
    found = _with(found, "train", epochs=how["epochs"], max_steps=how["max_steps"])
    found = _with(found, "optim", lr=settings.optim.lr * how["lr_scale"])
    found = _with(
        found,
        "schedule",
        name=curve if curve in _CURVES else "cosine",
        warmup=how["warmup"],
        warmup_cap=None,
    )
    found = _with(found, "stop", after=None)  # a step of the first data
    # Each part has loaders of its own to evaluate with: their workers end with the evaluation.
    return _with(found, "loader", persistent=False)


def data_of(settings: Any, part: Part, on_bad: str | None) -> Any:
    """The settings with the data of another part; `on_bad`, where there is such a setting."""
    changes: dict[str, Any] = {"path": str(part.data)}
    if on_bad is not None and hasattr(settings.data, "on_bad"):
        changes["on_bad"] = on_bad
    return _with(settings, "data", **changes)


def _with(settings: Any, section: str, **changes: Any) -> Any:
    changed = getattr(settings, section).model_copy(update=changes)
    return settings.model_copy(update={section: changed})


def plain(lesson: Lesson) -> dict[str, Any]:
    """It as JSON has it."""
    parts = [{"data": str(part.data), "kept": str(part.kept)} for part in lesson.parts]
    return {**asdict(lesson), "parts": parts}


def read(told: Mapping[str, Any]) -> Lesson:
    """What `plain` gave."""
    parts = [Part(Path(part["data"]), Path(part["kept"])) for part in told["parts"]]
    return Lesson(**{**told, "parts": parts})
