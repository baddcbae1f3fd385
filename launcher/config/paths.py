"""Settings that are paths: absolute in the files of a run, and equal if they lead to one file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gearshift.launcher.config.presets import TASK_FOLDER
from gearshift.launcher.config.provenance import Setting, Values, as_list
from gearshift.launcher.config.schema import config_of
from gearshift.models.catalog import HUB, is_custom

if TYPE_CHECKING:
    from gearshift.launcher.config.schema import Settings

_DOWNLOADS = "download.folder"
_DATA = "data."
PATHS: Mapping[str, Collection[str]] = {
    "engine.ds_config": (),
    "feature_cache.folder": (),
    _DOWNLOADS: (),
    TASK_FOLDER: (),
    "model.encoder": (),
    "model.pretrained": (),
    "model.start": (),
    "model.tokenizer": ("bytes", "bpe"),
    "data.path": (),
    "data.answers": (),
    "data.channels": (),
    "data.texts": (),
}
"""The settings of the families that are paths, and their values that are none."""
EMBEDDED = "embedded:"
"""How the names of built-in data begin."""


def kept_values(values: Values) -> dict[str, Any]:
    """The value of each setting for the files of a run: paths are absolute. Reads the disk."""
    texts = {key: setting.value for key, setting in values.items()}
    texts["download.variables"] = []  # a file cannot allow them
    if texts[_DOWNLOADS] is None and texts["download.files"]:
        from gearshift.launcher.config import feature_checks  # for the runs that declare files

        texts[_DOWNLOADS] = str(feature_checks.declared_targets(values)[0].folder)
    for key, value in texts.items():
        if isinstance(value, list):
            texts[key] = [_path_of(key, values, text) or text for text in value]
        else:
            texts[key] = _path_of(key, values, value) or value
    return texts


def is_same(key: str, old: object, new: object, values: Values) -> bool:
    """Whether two values of a setting are equal, or paths of the same file. Reads the disk.

    `new` may lack the commit of a name of the hub.
    """
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(is_same(key, *pair, values) for pair in zip(old, new, strict=True))
    # The commit of a model or data set that the user names again.
    head, *parts = str(new).removeprefix(HUB).split(":")
    if str(new).startswith(HUB) and str(old).startswith(f"{HUB}{head}@"):
        return set(parts) <= {*str(old).split(":")}
    first = _path_of(key, values, old)
    second = _path_of(key, values, new)
    if first is None or second is None:
        return old == new
    return os.path.realpath(first) == os.path.realpath(second)


def has_moved(key: str, old: object, new: object, values: Values) -> bool:
    """Whether the paths `old` exist no more, and `new` names other ones. Reads the disk."""
    if len(as_list(old)) != len(as_list(new)):
        return False
    for before, now in zip(as_list(old), as_list(new), strict=True):
        if is_same(key, before, now, values):
            continue
        first = _path_of(key, values, before)
        second = _path_of(key, values, now)
        if first is None or second is None:
            return False
        if os.path.exists(first) or not os.path.exists(second):
            return False
    return True


def keep_recorded(values: dict[str, Setting], recorded: Mapping[str, Any]) -> None:
    """Name files as the resumed run has `recorded` them, if the user names the same ones.

    The names of groups of samples contain those of files. Reads the disk.
    """
    for key in values.keys() & recorded.keys():
        old = recorded[key]
        if is_same(key, old, values[key].value, values):
            values[key] = replace(values[key], value=old)


def data_paths(settings: Settings) -> dict[str, Path]:
    """The files and folders of the data that `settings` name, by key. Reads the disk.

    Those of several have their number: `data.path[0]`.
    """
    data: Any = getattr(settings, "data", None)  # of the family
    files = {}
    for key in PATHS:
        if not key.startswith(_DATA):
            continue
        texts = as_list(getattr(data, key.removeprefix(_DATA), None))
        for number, text in enumerate(texts):
            name = key
            if len(texts) > 1:
                name = f"{key}[{number}]"
            path = Path(_absolute(text))
            if isinstance(text, str) and path.exists():
                files[name] = path
    return files


def _path_of(key: str, values: Values, value: object) -> str | None:
    """A value of a setting as an absolute path; None: it is no path."""
    if not isinstance(value, str) or not value or value.startswith((EMBEDDED, HUB)):
        return None
    path = _absolute(value)
    family = values["model.family"].value
    if is_custom(family) and key.startswith(("model.", _DATA)):
        # Only these are known of a custom task, and its data may have a name that is no path.
        known = (TASK_FOLDER, "data.path", *(stage.loads for stage in config_of(family).stages))
        is_path = key in known and os.path.exists(path)
    else:
        is_path = key in PATHS and value not in PATHS[key]
    return path if is_path else None


def _absolute(path: object) -> str:
    """`path` as an absolute one, its links kept."""
    return os.path.abspath(os.path.expanduser(str(path)))
