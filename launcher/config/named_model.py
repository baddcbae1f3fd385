"""What --model names: a family, a custom task, a pretrained model, or a run to start from."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gearshift.launcher.base.diagnostics import SettingsError, plain
from gearshift.launcher.config.provenance import Setting
from gearshift.launcher.config.schema import PRETRAINED, replaces_size, setting_infos
from gearshift.launcher.config.settings_file import read_values
from gearshift.models.catalog import FAMILIES, HUB, PRETRAINED_FAMILY, is_custom, split_model_name

FAMILY = "model.family"
SIZE = "model.size"
START = "model.start"
ENCODER = "model.encoder"
_STAGE = "model.stage"
_CONFIG = "config.json"
_SETTINGS = "settings.yaml"
_CHECKPOINTS = "checkpoints"
_BESIDE = ("origins.json", _CHECKPOINTS)
"""What a run has beside its settings: a settings.yaml alone may be a file of the user."""
_NAME = re.compile(r"(?P<owner>\w[\w.-]*)/\w[\w.-]*(@[\w./-]+)?")
_OTHER_FORM = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:datasets/)?(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:/(?:tree|blob)/(?P<branch>[\w.-]+).*)?/?"
    r"|(?P<pair>[\w.-]+/[\w.-]+):(?P<revision>[\w.-]+)"
)
"""The address of a page of the hub, and OWNER/NAME:REVISION of other programs."""


@dataclass(frozen=True)
class NamedModel:
    """The settings that a name stands for."""

    settings: Mapping[str, str]
    """By key, as texts that the user could type."""
    meaning: str = ""
    """What the name was taken for; empty: the name of a family or task says so itself."""


def named_model(name: str) -> NamedModel:
    """What `name` stands for. A folder that exists counts before a name of the hub.

    Reads the disk. Raises SettingsError for a folder without a model.
    """
    family, size = split_model_name(name)
    if family not in FAMILIES and not is_custom(family):
        folder = Path(name).expanduser()
        if folder.is_dir():
            return _of_folder(name, folder)
        hub_name = name_of_hub(name)
        if hub_name is not None:
            return _pretrained(name, hub_name, "a model of the Hugging Face hub")
    settings = {FAMILY: family}
    if size or name.endswith(":"):
        settings[SIZE] = size
    return NamedModel(settings)


def name_of_hub(text: str) -> str | None:
    """`hf:OWNER/NAME[@REVISION]` of a text with or without `hf:`; None: it names no repository.

    A path that exists is none. Reads the disk.
    """
    if text.startswith(HUB):
        return text
    match = _NAME.fullmatch(text)
    if match is None or match["owner"] in FAMILIES or os.path.lexists(text):
        return None
    return HUB + text


def nearest_name_of_hub(text: str) -> str | None:
    """The name of a repository in the form of another program, or as the address of its page."""
    match = _OTHER_FORM.fullmatch(text)
    if match is None:
        return None
    revision = match["branch"] or match["revision"]
    name = HUB + (match["id"] or match["pair"])
    return f"{name}@{revision}" if revision and revision != "main" else name


def name_pretrained(values: dict[str, Setting]) -> None:
    """Write `hf:` before OWNER/NAME in model.pretrained. Reads the disk."""
    setting = values.get(PRETRAINED)
    if setting is None or not isinstance(setting.value, str) or is_custom(values[FAMILY].value):
        return
    hub_name = name_of_hub(setting.value)
    if hub_name is not None:
        values[PRETRAINED] = replace(setting, value=hub_name)


def _pretrained(name: str, value: str, kind: str) -> NamedModel:
    meaning = f"--model {name}: family {PRETRAINED_FAMILY} with {PRETRAINED}={value}, {kind}"
    return NamedModel({FAMILY: PRETRAINED_FAMILY, PRETRAINED: value}, meaning)


def _of_folder(name: str, folder: Path) -> NamedModel:
    run = settings_around(folder)
    if run:
        return _of_run(name, run)
    is_of_hub = _NAME.fullmatch(name) is not None
    if not (folder / _CONFIG).is_file():
        raise SettingsError.of(
            f"the folder '{name}' has no model: neither {_CONFIG} nor {_SETTINGS} of a run",
            key=FAMILY,
            value=name,
            where=f"--model {name}",
            allowed="a folder with a model of transformers, or a run folder",
            fix=f"--model {HUB}{name}" if is_of_hub else None,
        )
    kind = "a folder"
    if is_of_hub:
        kind += f"; the model of the hub would be {HUB}{name}"
    return _pretrained(name, name, kind)


def settings_around(path: Path) -> dict[str, Any]:
    """The settings of the run at `path`, or around it where that is a checkpoint; empty: none.

    Reads the disk. Raises SettingsError for a damaged file, and OSError.
    """
    folder = path
    if path.parent.name == _CHECKPOINTS:
        folder = path.parent.parent
    elif path.name in ("best", "last"):
        folder = path.parent
    file = folder / _SETTINGS
    is_run = file.is_file() and any((folder / name).exists() for name in _BESIDE)
    return read_values(file) if is_run else {}


def _of_run(name: str, values: Mapping[str, Any]) -> NamedModel:
    """The model of a run, with its weights: all its settings that are not of its own start."""
    family = str(values.get(FAMILY))
    infos = setting_infos(family) if family in FAMILIES else {}
    model = f"{family}:{values.get(SIZE)}"
    if START not in infos or values.get(_STAGE) == "encoder":
        raise SettingsError.of(
            f"the run '{name}' of {model} has no weights for a whole model",
            key=FAMILY,
            value=name,
            where=f"--model {name}",
            allowed=f"a run of a family with {START}, trained as a whole",
            fix=f"--model {model} --set {shlex.quote(f'{ENCODER}={name}')}" if infos else None,
        )
    settings = {FAMILY: family, START: name}
    for key, info in infos.items():
        value = values.get(key, info.default)
        is_of_model = key == PRETRAINED or (key != _STAGE and _STAGE not in info.only_if)
        if key.startswith("model.") and is_of_model and (key == SIZE or value != info.default):
            settings[key] = plain(value)
    if replaces_size(family, values.get(PRETRAINED)):
        del settings[SIZE]  # it has no effect
        model = f"{family} with {PRETRAINED}={values[PRETRAINED]}"
    return NamedModel(settings, f"--model {name}: {model} with {START}={name}, a run")
