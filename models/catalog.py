"""The catalog of model families, and how models and custom tasks are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """One stage of mode `staged`, trained in its own run.

    The block of its name under `stages` in the family's YAML holds its settings and promises.
    """

    name: str
    sentence: str
    """What is trained, without an initial capital."""
    loads: str | None = None
    """The setting that names its initial weights. None: random weights."""
    of: tuple[str, ...] = ()
    """The stages that these weights come from; of several, the one trained last."""
    optional: bool = False
    """Trained only if `stages` names it."""
    predicts: bool = True
    """Whether `predict` gives results, and not features of an encoder."""


@dataclass(frozen=True)
class Family:
    """Where a family's settings and task are defined; creating the record imports nothing."""

    name: str
    """Its folder in models/."""
    sentence: str
    task_class: str
    """In its module `task`, built as Class(model, data, context)."""
    stages: tuple[Stage, ...] = ()
    """What mode `staged` trains, in this order; empty: not staged."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """For a family that generates text: a prompt to try after training on each built-in data."""
    predicts: bool = False
    """Whether its task has `predict` or `generate`: a run then ends with that command."""

    @property
    def config(self) -> str:
        """Module with the classes Model and Data and the table SIZES, from small to large, each
        size with its exact number of `parameters`; imports no torch."""
        return f"gearshift.models.{self.name}.config"

    @property
    def task(self) -> str:
        """`module:Class` of the task."""
        return f"gearshift.models.{self.name}.task:{self.task_class}"

    @property
    def formats(self) -> str:
        """Module with FORMATS, one description per format, recognize(path) -> str | None, the
        format of a file or folder, and EMBEDDED, the names of built-in data; imports no torch."""
        return f"gearshift.models.{self.name}.formats"


def _encoder(sentence: str) -> Stage:
    return Stage("encoder", sentence, predicts=False)


def _on_encoder(name: str, sentence: str) -> Stage:
    return Stage(name, sentence, loads="model.encoder", of=("encoder",))


_FAMILIES = (
    Family(
        "event_seg",
        "the edges in a camera frame from the events since the last one, by convolutions",
        "EventSegTask",
        (
            _encoder("the encoder is trained, the decoder is frozen"),
            _on_encoder("whole", "the decoder is trained on the frozen encoder"),
        ),
        predicts=True,
    ),
    Family(
        "language",
        "a decoder-only transformer in the Llama layout, for text",
        "LanguageTask",
        (
            Stage("lower", "the lower half of the layers is trained, the upper one is frozen"),
            Stage(
                "upper",
                "the upper half of the layers is trained on the frozen lower one",
                loads="model.start",
                of=("lower",),
            ),
        ),
        {"embedded:python": "def ", "embedded:commands": "list /tmp by size"},
        predicts=True,
    ),
    Family(
        "abr",
        "auditory brainstem responses: waveform, wave V, kind of hearing loss and threshold",
        "AbrTask",
        (
            _encoder("the encoder is trained, decoder and heads are frozen"),
            _on_encoder("whole", "decoder and heads are trained on the frozen encoder"),
        ),
        predicts=True,
    ),
    Family(
        "doc_translation",
        "a page image to its translation as Markdown, by two image encoders and a text decoder",
        "DocTranslationTask",
        (
            _encoder("both image encoders are trained, query transformers and decoder are frozen"),
            _on_encoder(
                "whole",
                "query transformers and decoder are trained on the frozen encoders",
            ),
        ),
        predicts=True,
    ),
    Family(
        "eeg_text",
        "sentences from EEG during reading, by ten regional encoders and a text decoder",
        "EegTask",
        (
            _encoder("the encoder is pre-trained on masked EEG, without any text"),
            _on_encoder("text", "the text decoder is trained on the outputs of the frozen encoder"),
            Stage(
                "top",
                "the text decoder and the encoder's global transformer are trained together",
                loads="model.start",
                of=("text",),
                optional=True,
            ),
            Stage(
                "whole",
                "encoder and text decoder are trained together",
                loads="model.start",
                of=("text", "top"),
                optional=True,
            ),
        ),
        predicts=True,
    ),
)
FAMILIES = {family.name: family for family in _FAMILIES}
PRETRAINED_FAMILY = "language"
"""The family of a pretrained model that is named without one."""


_OF_HUB = re.compile(r"\w+://.*|hf:.*|[\w-]+/[\w.-]+:[a-z0-9].*")
"""A URL, hf:ID, or OWNER/NAME:REVISION: no custom task."""


def split_model_name(name: str) -> tuple[str, str]:
    """Model and size of `FAMILY[:SIZE]` or `package.module:Class[:SIZE]`; without a size: "".

    A class differs from a size by the dot or slash before it, or by its capital letter. What is a
    model of a hub stays whole.
    """
    first, _, rest = name.partition(":")
    if _OF_HUB.fullmatch(name):
        return name, ""
    if first in FAMILIES or not rest or not ({".", "/"} & set(first) or rest[0].isupper()):
        return first, rest
    class_name, _, size = rest.partition(":")
    return f"{first}:{class_name}", size


def is_custom(name: str) -> bool:
    """Whether a model is a custom task, `package.module:Class`, rather than a family."""
    return ":" in name and not _OF_HUB.fullmatch(name) and split_model_name(name) == (name, "")


def stages_of(name: str) -> tuple[Stage, ...]:
    """The stages that a family declares, in order; empty for other names."""
    if name in FAMILIES:
        return FAMILIES[name].stages
    return ()


HUB = "hf:"
"""How the name of a model of the hub begins: `hf:OWNER/NAME@COMMIT`."""
_COMMITS = "snapshots"


def name_of(folder: Path) -> str:
    """The name of a folder; of one in the cache of the hub, that of its model."""
    if folder.parent.name != _COMMITS:
        return folder.name
    return folder.parent.parent.name.rpartition("--")[2]


def folder_of(name: str) -> Path:
    """The folder that a value of model.pretrained names; of the hub, a commit in the cache.

    Reads neither the network nor the disk: who starts the ranks has downloaded it.
    """
    if not name.startswith(HUB):
        return Path(name).expanduser()
    model, _, commit = name.removeprefix(HUB).partition("@")
    return _cached("models", model, _COMMITS, commit)


def _cached(kind: str, name: str, *parts: str) -> Path:
    """A place in the cache of the hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE, f"{kind}--{name.replace('/', '--')}", *parts)


def data_folder(name: str) -> Path:
    """The folder with links to the files of `hf:OWNER/NAME@COMMIT:CONFIG:SPLIT`, in the cache."""
    data, _, parts = name.removeprefix(HUB).partition("@")
    return _cached("datasets", data, "splits", *parts.split(":"))


def local_path(name: str) -> str:
    """The file or folder that a value of data.path names; of the hub, a split in the cache.

    Reads the disk, not the network: who starts the ranks has downloaded it.
    """
    if not name.startswith(HUB):
        return name
    folder = data_folder(name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return str(files[0] if len(files) == 1 else folder)
