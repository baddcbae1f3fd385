"""The families there are, where each one lives, and how a task of one's own is named."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of a training that is a run of its own, in mode `staged`.

    What it builds, trains and freezes, and what it promises, say its settings: the block of its
    name under `stages` in the family's YAML.
    """

    name: str
    sentence: str
    """What is trained, beginning small."""
    loads: str | None = None
    """The setting that names its first weights: a run folder, the best checkpoint of which is
    taken, or else the last; a checkpoint, an export or a safetensors file. None: it has random
    weights."""
    of: tuple[str, ...] = ()
    """The stages whose weights those are: of several, the one that was trained last."""
    optional: bool = False
    """Trained only where `stages` names it."""


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
    """Module with FORMATS, what it reads in words, recognise(path) -> str | None, the format of a
    file or folder, and EMBEDDED, the names of the data that needs no file; imports no torch."""
    stages: tuple[Stage, ...] = ()
    """What the mode `staged` trains one after the other, in this order; none: not staged."""


FAMILIES = {
    "event_seg": Family(
        "event_seg",
        "the edges in a camera frame from the events since the last one, by convolutions",
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
    "abr": Family(
        "abr",
        "auditory brainstem responses: waveform, wave V, kind of hearing loss and threshold",
        "models.abr.config",
        "models.abr.task:ResponseTask",
        "models.abr.formats",
    ),
    "doc_translation": Family(
        "doc_translation",
        "a page image to its translation as Markdown, by two image encoders and a text decoder",
        "models.doc_translation.config",
        "models.doc_translation.task:DocTranslationTask",
        "models.doc_translation.formats",
    ),
    "eeg_text": Family(
        "eeg_text",
        "sentences from EEG during reading, by ten regional encoders and a text decoder",
        "models.eeg_text.config",
        "models.eeg_text.task:EegTextTask",
        "models.eeg_text.formats",
        (
            Stage("encoder", "the encoder learns to fill in masked EEG, without any text"),
            Stage(
                "text",
                "the text decoder learns to write from what the encoder tells",
                loads="model.encoder",
                of=("encoder",),
            ),
            Stage(
                "top",
                "the text decoder and what joins the ten regions of the encoder learn together",
                loads="model.start",
                of=("text",),
                optional=True,
            ),
            Stage(
                "whole",
                "all of encoder and text decoder learns together",
                loads="model.start",
                of=("text", "top"),
                optional=True,
            ),
        ),
    ),
}


def split_model_name(word: str) -> tuple[str, str]:
    """The model and the size of `FAMILY[:SIZE]` or `package.module:Class[:SIZE]`; no size: empty.

    A class is told from a size by the dot or slash before it, or by its capital letter.
    """
    first, _, rest = word.partition(":")
    if first in FAMILIES or not rest or not ({".", "/"} & set(first) or rest[0].isupper()):
        return first, rest
    name, _, size = rest.partition(":")
    return f"{first}:{name}", size


def is_custom(name: str) -> bool:
    """Whether a model is a person's own task, `package.module:Class`, and not of a family."""
    return ":" in name and split_model_name(name) == (name, "")


def stages_of(name: str) -> tuple[Stage, ...]:
    """The stages that a family declares, in their order; none for what is no family."""
    return FAMILIES[name].stages if name in FAMILIES else ()
