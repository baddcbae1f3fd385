"""The settings of a run that goes on, as a layer of their own below what is typed now."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError
from launcher.config import custom_task, errors
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.provenance import (
    RESUMED_LAYER,
    USER_LAYERS,
    Entry,
    Layer,
    Origin,
    Setting,
    file_layer,
    find_node,
)
from launcher.config.render import ORIGINS, SETTINGS
from launcher.config.schema import config_of
from launcher.config.settings_file import Node, read_settings_file
from models.catalog import FAMILIES, is_custom

_FITTED = ("machine", "engine", "solved")
"""What the program chose for the processes and the machine of then, and chooses anew now."""
_PLACED = ("engine.nproc", "engine.max_restarts")
"""What torchrun and srun decide in our place."""


@dataclass(frozen=True)
class Base:
    """What the folder of a run tells of its settings."""

    entries: Mapping[str, Entry]
    """Each line of settings.yaml by its key."""
    origins: Mapping[str, Mapping[str, Any]]
    """origins.json: for each key its value, its layer, and what it replaced."""

    @property
    def settings(self) -> dict[str, Any]:
        """The values of settings.yaml by dotted key."""
        return {key: entry.value for key, entry in self.entries.items()}

    def chosen(self, key: str) -> Entry | None:
        """The entry of `key`, unless the program chose it for the machine of then."""
        return None if self._layer(key) in _FITTED else self.entries.get(key)

    def over(
        self,
        beneath: Mapping[str, Setting],
        typed: Collection[str],
        engine: str | None,
        is_placed: bool,
    ) -> Layer:
        """The layer to lay over the shipped values `beneath`, below the keys that are `typed` now.

        What the program itself says, or fitted to the machine of then, is left to it: engine,
        processes and batch are solved anew for `engine`, with the global batch as it was.
        `is_placed`: torchrun or srun started the processes.
        """
        left_out = self._left_out(typed, engine) | set(_PLACED if is_placed else ())
        kept = [
            self._as_asked(entry)
            for key, entry in self.entries.items()
            if key not in left_out
            and (key in (GLOBAL, MICRO) or self._layer(key) not in _FITTED)
            and not self._is_shipped(key, beneath)
        ]
        return Layer(RESUMED_LAYER, kept)

    def _left_out(self, typed: Collection[str], engine: str | None) -> set[str]:
        """The keys on which the words of now have the say, though they name others."""
        found = {ACCUMULATION}
        before = self.entries.get("engine.name")
        if engine is not None and (before is None or engine != before.value):
            found |= set(ENGINES[engine].settings)
            if ENGINES[engine].processes is not None:
                found.add("engine.nproc")
        if ACCUMULATION in typed or GLOBAL in typed:
            found.add(MICRO)
        if {MICRO, ACCUMULATION} <= set(typed):
            found.add(GLOBAL)
        if "train.epochs" in typed:
            found.add("train.max_steps")
        return found

    def _layer(self, key: str) -> str | None:
        layer = self.origins.get(key, {}).get("layer")
        return layer if isinstance(layer, str) else None

    def _is_shipped(self, key: str, beneath: Mapping[str, Setting]) -> bool:
        """Whether the program said so of itself, and says so still."""
        layer = self._layer(key)
        if layer in (None, *USER_LAYERS) or key == GLOBAL or key not in beneath:
            return False
        return bool(self._as_asked(self.entries[key]).value == beneath[key].value)

    def _as_asked(self, entry: Entry) -> Entry:
        """The micro-batch as it was asked for, before it was solved for the processes of then."""
        if entry.key != MICRO or self._layer(MICRO) != "solved":
            return entry
        replaced = self.origins[MICRO].get("replaced")
        asked = replaced[0].get("value") if replaced else None
        total = self.entries[GLOBAL].value if GLOBAL in self.entries else None
        fits = type(asked) is int and type(total) is int and asked > 0 and total % asked == 0
        return replace(entry, value=asked, text=str(asked)) if fits else entry


def read(folder: Path, task_folder: object = None) -> Base:
    """What a run folder tells of its settings. Reads the disk. Raises SettingsError.

    `task_folder`: where a task of the person's own is now, if they say so.
    """
    path = folder / SETTINGS
    root = read_settings_file(path)
    family = find_node(root, "model.family")
    if family is not None and is_custom(family.value):
        _find_own(path, root, family, task_folder)
    elif family is None or family.value not in FAMILIES:
        what = f"{path} is not the settings of a run: it names no model family there is"
        raise SettingsError([Diagnostic(what, where=str(path), allowed=", ".join(FAMILIES))])
    layer = file_layer(RESUMED_LAYER, root, str(path), family.value, -1)
    entries = {}
    for entry in layer.entries:
        entries[entry.key] = replace(entry, option="--set")
    return Base(entries, _origins(folder / ORIGINS))


def _find_own(path: Path, root: Node, family: Node, task_folder: object) -> None:
    """See that the run's task is there, also from another folder. Raises SettingsError."""
    folder = find_node(root, custom_task.FOLDER)
    custom_task.add_search_folder(task_folder or (folder and folder.value))
    try:
        config_of(family.value)
    except SettingsError as error:
        origin = Origin(RESUMED_LAYER, f"{path}:{family.line}")
        raise SettingsError(errors.custom_task_errors(error, origin)) from None


def _origins(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """origins.json; nothing where it cannot be read: all settings then count as a person's."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def typed_keys(personal: Sequence[Layer]) -> set[str]:
    """The keys that a person names now."""
    return {entry.key for layer in personal for entry in layer.entries}
