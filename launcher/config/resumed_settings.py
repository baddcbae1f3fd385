"""The settings of a resumed run, as a layer below the new files and arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.batching import ACCUMULATION, GLOBAL, LEAST, MICRO
from gearshift.launcher.config.provenance import (
    BY_AUTO,
    FITTED_LAYERS,
    MACHINE_LAYER,
    RESUMED_LAYER,
    USER_LAYERS,
    Setting,
    Values,
    layer_of,
)
from gearshift.launcher.config.render import ORIGINS, SETTINGS
from gearshift.launcher.config.settings_file import read_lines
from gearshift.training.storage import read_json

_PLACED = ("engine.nproc", "engine.max_restarts")
"""Settings that torchrun and srun decide."""
_DECIDED = {ACCUMULATION: (MICRO,), GLOBAL: (MICRO,), "train.epochs": ("train.max_steps",)}
"""What a new setting decides."""


@dataclass(frozen=True)
class Base:
    """The settings of a run as its folder has them."""

    entries: Values
    """The settings of settings.yaml."""
    origins: Mapping[str, Mapping[str, Any]]
    """origins.json: value, layer and overridden values by key."""

    @property
    def settings(self) -> dict[str, Any]:
        """The values of settings.yaml by dotted key."""
        return {key: setting.value for key, setting in self.entries.items()}

    def chosen(self, keys: Collection[str]) -> dict[str, Setting]:
        """The settings of `keys`, except those that were chosen for the engine or the machine.

        What engine auto chose stays.
        """
        chosen = {}
        for key in keys:
            if key in self.entries and (
                self._is_auto(key) or self._layer(key) not in FITTED_LAYERS
            ):
                chosen[key] = self.entries[key]
        return chosen

    def over(
        self, shipped: Values, new_keys: Collection[str], engine: str | None, is_placed: bool
    ) -> Values:
        """The layer above the values `shipped`; `new_keys` override it.

        Values that Gearshift chose for the old engine and machine are left out: engine, processes
        and batch are solved again for `engine`, with the same global batch. `is_placed`: torchrun
        or srun started the processes.
        """
        left_out = {ACCUMULATION}
        if is_placed:
            left_out.update(_PLACED)
        if "engine.name" in new_keys:
            left_out.update(key for key in self.entries if self._is_auto(key))
        before = self.settings
        if engine not in (None, before.get("engine.name")):
            left_out.update(ENGINES[engine].settings)
            if ENGINES[engine].processes:
                left_out.add("engine.nproc")
        for key, decided in _DECIDED.items():
            if key in new_keys:
                left_out.update(decided)
        if MICRO in new_keys and ACCUMULATION in new_keys:
            left_out.add(GLOBAL)
        if "train.time" in new_keys and before.get("train.time") is None:
            left_out.update(("train.epochs", "train.max_steps"))

        kept = self.chosen(before)
        if before.get(LEAST) is None and GLOBAL in before:  # else it ended before it read its data
            kept[GLOBAL] = self.entries[GLOBAL]
        # Without what Gearshift itself chose, and still does.
        layer = {}
        for key, setting in kept.items():
            is_users = key == GLOBAL or self._layer(key) in (None, *USER_LAYERS)
            is_other = key not in shipped or shipped[key].value != setting.value
            if key not in left_out and (is_users or is_other):
                layer[key] = setting
        return layer

    def _layer(self, key: str) -> str | None:
        layer = self.origins.get(key, {}).get("layer")
        return layer if isinstance(layer, str) else None

    def _is_auto(self, key: str) -> bool:
        origin = str(self.origins.get(key, {}).get("origin"))
        return self._layer(key) == MACHINE_LAYER and origin.startswith(BY_AUTO)


def read(folder: Path) -> Base:
    """The settings of a run folder. Reads the disk. Raises SettingsError."""
    path = folder / SETTINGS
    entries = layer_of(RESUMED_LAYER, read_lines(path))
    if "model.family" not in entries:
        message = f"{path} does not hold the settings of a run: it names no model family"
        raise SettingsError.of(message, where=str(path))
    try:
        content = read_json(folder / ORIGINS)
    except (OSError, ValueError):
        content = None  # all settings then count as set by the user
    origins = {}
    if isinstance(content, dict):
        origins = {key: value for key, value in content.items() if isinstance(value, dict)}
    return Base(entries, origins)
