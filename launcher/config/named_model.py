"""What --model names: a family, a custom task, a pretrained model, or a run to start from."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, plain
from gearshift.launcher.config.errors import about_value
from gearshift.launcher.config.provenance import Setting, Values
from gearshift.launcher.config.schema import PRETRAINED, replaces_size, setting_infos
from gearshift.launcher.config.settings_file import read_values
from gearshift.models.catalog import FAMILIES, HUB, PRETRAINED_FAMILY, is_custom

_FAMILY = "model.family"
_SIZE = "model.size"
START = "model.start"
_ENCODER = "model.encoder"
_STAGE = "model.stage"
_SETTINGS = "settings.yaml"
_CHECKPOINTS = "checkpoints"
_BESIDE = ("origins.json", _CHECKPOINTS)
"""What a run has beside its settings: a settings.yaml alone may be a file of the user."""
_NAME = re.compile(r"(?P<owner>\w[\w.-]*)/\w[\w.-]*(@[\w./-]+)?")
_OTHER_FORM = re.compile(
    r"(?:(?:https?://)?(?:huggingface\.co|hf\.co)/(?:datasets/)?)?(?P<id>[\w.-]+/[\w.-]+)"
    r"(?:(?::|/tree/|/blob/)(?P<revision>[\w.-]+).*)?/?"
)
"""The address of a page of the hub, and OWNER/NAME:REVISION of other programs."""


def settings_of(name: str) -> dict[str, str]:
    """The settings that a `name` of no family stands for, by key, as texts; empty: unknown.

    A folder that exists counts before a name of the hub. Reads the disk. Raises SettingsError for a
    folder without a model.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        hub_name = name_of_hub(name)
        return {_FAMILY: PRETRAINED_FAMILY, PRETRAINED: hub_name} if hub_name else {}
    run = settings_around(folder)
    if run:
        return _of_run(name, run)
    if (folder / "config.json").is_file():
        return {_FAMILY: PRETRAINED_FAMILY, PRETRAINED: name}
    raise _no_model(
        f"the folder '{name}' has no model",
        name,
        allowed="a folder with the config.json of transformers, or a run folder",
        fix=f"--model {HUB}{name}" if _NAME.fullmatch(name) else None,
    )


def _no_model(message: str, name: str, **parts: Any) -> SettingsError:
    return SettingsError.of(message, key=_FAMILY, value=name, where=f"--model {name}", **parts)


def meaning(values: Values) -> Iterator[str]:
    """What --model was taken for, unless it names a family or task."""
    for key in (START, PRETRAINED):
        setting = values.get(key)
        if setting is not None and setting.origin.where.startswith("--model "):
            family = values[_FAMILY].value
            yield f"{setting.origin.where}: family {family} with {key}={setting.value}"
            return


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
    if match is None or match["id"].partition("/")[0] in FAMILIES:
        return None
    revision = match["revision"] or "main"
    return HUB + match["id"] + (f"@{revision}" if revision != "main" else "")


def name_pretrained(values: dict[str, Setting]) -> None:
    """Write `hf:` before OWNER/NAME in model.pretrained. Reads the disk."""
    setting = values.get(PRETRAINED)
    if setting is None or not isinstance(setting.value, str) or is_custom(values[_FAMILY].value):
        return
    hub_name = name_of_hub(setting.value)
    if hub_name is not None:
        values[PRETRAINED] = replace(setting, value=hub_name)


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


def check_weights(values: Values, key: str) -> Iterator[Diagnostic]:
    """The error of a run in model.start or model.encoder of another family or size."""
    try:
        run = settings_around(Path(values[key].value).expanduser())
    except (SettingsError, OSError):  # loading reports it
        return
    is_pretrained = PRETRAINED in values and values[PRETRAINED].value is not None
    before = f"{run.get(_FAMILY)}:{run.get(_SIZE)}"
    now = f"{values[_FAMILY].value}:{values[_SIZE].value}"
    if run and before != now and not is_pretrained and run.get(PRETRAINED) is None:
        problem = f"is a run of {before}, not of {now}"
        yield about_value(values, key, problem, fix=f"--model {before}")


def _of_run(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The model of a run, with its weights: all its settings that are not of its own start."""
    family = str(values.get(_FAMILY))
    infos = setting_infos(family) if family in FAMILIES else {}
    model = f"{family}:{values.get(_SIZE)}"
    if START not in infos or values.get(_STAGE) == "encoder":
        raise _no_model(
            f"the run '{name}' of {model} has no weights for a whole model",
            name,
            allowed=f"a run of a family with {START}, trained as a whole",
            fix=f"--model {model} --set {shlex.quote(f'{_ENCODER}={name}')}" if infos else None,
        )
    settings = {_FAMILY: family, START: name}
    for key, info in infos.items():
        value = values.get(key, info.default)
        is_of_model = key == PRETRAINED or (key != _STAGE and _STAGE not in info.only_if)
        if key.startswith("model.") and is_of_model and (key == _SIZE or value != info.default):
            settings[key] = plain(value)
    if replaces_size(family, values.get(PRETRAINED)):
        del settings[_SIZE]  # it has no effect
    return settings
