"""Settings that are paths: absolute in the files of a run, and equal if they lead to one file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.provenance import Setting, Values
from gearshift.launcher.config.schema import config_of
from gearshift.models.catalog import HUB, is_custom

if TYPE_CHECKING:
    from gearshift.launcher.config.schema import Settings

_DOWNLOADS = "download.folder"
_DATA = "data."
PATHS: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("engine.ds_config", "feature_cache.folder", _DOWNLOADS, TASK_FOLDER), ()),
    **dict.fromkeys(("model.encoder", "model.pretrained", "model.start"), ()),
    "model.tokenizer": ("bytes", "bpe"),
    **dict.fromkeys(("data.path", "data.answers", "data.channels", "data.texts"), ()),
}
"""The settings of the families that are paths, and their values that are none."""
EMBEDDED = "embedded:"
"""How the names of built-in data begin."""


def kept_values(values: Values) -> dict[str, Any]:
    """The value of each setting for the files of a run: paths are absolute. Reads the disk."""
    kept = {key: setting.value for key, setting in values.items()}
    kept["download.variables"] = []  # a file cannot allow them
    if kept[_DOWNLOADS] is None and kept["download.files"]:
        from gearshift.launcher.config import feature_checks  # for the runs that declare files

        kept[_DOWNLOADS] = str(feature_checks.declared_targets(values)[0].folder)
    return {
        key: _absolute(value) if _are_paths(key, values, value) else value
        for key, value in kept.items()
    }


def is_same(key: str, old: object, new: object, values: Values) -> bool:
    """Whether two values of a setting are paths of the same file or folder. Reads the disk."""
    return _are_paths(key, values, old, new) and _absolute(old, links=False) == _absolute(
        new, links=False
    )


def has_moved(key: str, old: object, new: object, values: Values) -> bool:
    """Whether the path `old` exists no more, and `new` names another one. Reads the disk."""
    there = [os.path.exists(_absolute(path)) for path in (old, new)]
    return _are_paths(key, values, old, new) and there == [False, True]


def keep_recorded(values: dict[str, Setting], recorded: Mapping[str, Any]) -> None:
    """Name files as the resumed run has `recorded` them, if the user names the same by another path.

    The names of groups of samples contain those of files. Reads the disk.
    """
    for key in values.keys() & recorded.keys():
        new = values[key].value
        old = recorded[key]
        # The commit of the run, if the user names the model again.
        if is_same(key, old, new, values) or (
            str(new).startswith(HUB) and str(old).startswith(f"{new}@")
        ):
            values[key] = replace(values[key], value=old)


def data_paths(settings: Settings) -> dict[str, Path]:
    """The files and folders of the data that `settings` name, by key. Reads the disk."""
    data: Any = getattr(settings, "data", None)  # of the family
    texts = {key: getattr(data, key[len(_DATA) :], None) for key in PATHS if key.startswith(_DATA)}
    files = {key: Path(_absolute(text)) for key, text in texts.items() if isinstance(text, str)}
    return {key: path for key, path in files.items() if path.exists()}


def _are_paths(key: str, values: Values, *texts: object) -> bool:
    family = values["model.family"].value
    if not all(
        isinstance(text, str) and text and not text.startswith((EMBEDDED, HUB)) for text in texts
    ):
        return False
    if not is_custom(family) or not key.startswith(("model.", _DATA)):
        return key in PATHS and not any(text in PATHS[key] for text in texts)
    # Only these are known of a custom task, and its data may have a name that is no path.
    known = (TASK_FOLDER, "data.path", *(stage.loads for stage in config_of(family).stages))
    return key in known and all(os.path.exists(_absolute(text)) for text in texts)


def _absolute(path: object, links: bool = True) -> str:
    """`path` as an absolute one, its links kept or followed."""
    return (os.path.abspath if links else os.path.realpath)(os.path.expanduser(str(path)))
