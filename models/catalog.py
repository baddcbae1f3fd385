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
    "language": Family(
        "language",
        "a decoder-only transformer in the Llama layout, for text",
        "models.language.config",
        "models.language.task:LanguageTask",
        "models.language.formats",
    ),
    "eeg_text": Family(
        "eeg_text",
        "regional and global transformers over EEG of reading, and a text decoder",
        "models.eeg_text.config",
        "models.eeg_text.task:EegTextTask",
        "models.eeg_text.formats",
    ),
}
