"""The families there are: where each one lives, and one sentence on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Where a family's settings and task live; nothing is imported by naming it."""

    name: str
    sentence: str
    config: str
    """Module with classes Model and Data and the table SIZES, from small to large, each size with
    its exact number of `parameters`; imports no torch."""
    task: str
    """`module:Class`, built as Class(model, data, context)."""
    formats: str
    """Module with FORMATS, what it reads in words, and recognise(path) -> str | None, the format of
    a file or folder; imports no torch."""
    stages: tuple[str, ...] = ()
    """Names of the stages that the mode `staged` trains one after the other; none: not staged."""


FAMILIES = {
    "event_seg": Family(
        "event_seg",
        "convolutions down and up again, for the edges that an event camera sees",
        "models.event_seg.config",
        "models.event_seg.task:EventSegTask",
        "models.event_seg.formats",
    ),
    "language": Family(
        "language",
        "a decoder-only transformer in the Llama layout, for text",
        "models.language.config",
        "models.language.task:LanguageTask",
        "models.language.formats",
    ),
}
