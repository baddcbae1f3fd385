"""The settings of a resumed run, as a layer below the new files and arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
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
from gearshift.models.catalog import FAMILIES, is_custom
from gearshift.training.storage import read_json

_PLACED = ("engine.nproc", "engine.max_restarts")
"""Settings that torchrun and srun decide."""


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
        return {
            key: self.entries[key]
            for key in keys
            if key in self.entries and (self._layer(key) not in FITTED_LAYERS or self._is_auto(key))
        }

    def over(
        self, shipped: Values, new_keys: Collection[str], engine: str | None, is_placed: bool
    ) -> Values:
        """The layer above the values `shipped`; `new_keys` override it.

        Values that Gearshift chose for the old engine and machine are left out: engine, processes
        and batch are solved again for `engine`, with the same global batch. `is_placed`: torchrun
        or srun started the processes.
        """
        new = {*new_keys}
        before = self.settings
        left_out = {ACCUMULATION, *(_PLACED if is_placed else ())}
        if "engine.name" in new:
            left_out |= {key for key in self.entries if self._is_auto(key)}
        if engine not in (None, before.get("engine.name")):
            left_out |= {
                *ENGINES[engine].settings,
                *(["engine.nproc"] if ENGINES[engine].processes else []),
            }
        pairs = [(MICRO, {ACCUMULATION}), (MICRO, {GLOBAL}), (GLOBAL, {MICRO, ACCUMULATION})]
        left_out |= {
            key for key, causes in (*pairs, ("train.max_steps", {"train.epochs"})) if causes <= new
        }
        kept = {*self.chosen(before)}
        if before.get(LEAST) is None:  # else it ended before it read its data
            kept |= {GLOBAL, MICRO}
        layer = {key: self.entries[key] for key in before if key in kept - left_out}
        if MICRO in layer and self._layer(MICRO) == MACHINE_LAYER and not self._is_auto(MICRO):
            # As it was set, before it was solved for the number of processes.
            replaced = self.origins[MICRO].get("replaced") or []
            total = before.get(GLOBAL)
            below = [old.get("value") for old in replaced if old.get("layer") != MACHINE_LAYER]
            asked = below[0] if below else None
            if type(asked) is int and type(total) is int and asked > 0 and total % asked == 0:
                layer[MICRO] = replace(layer[MICRO], value=asked)
        # Without what Gearshift itself chose, and still does.
        users = [GLOBAL, *(key for key in layer if self._layer(key) in (None, *USER_LAYERS))]
        same = [key for key in layer if key in shipped and layer[key].value == shipped[key].value]
        return {key: setting for key, setting in layer.items() if key in users or key not in same}

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
    family = entries["model.family"].value if "model.family" in entries else None
    if family not in FAMILIES and not is_custom(str(family)):
        what = f"{path} does not hold the settings of a run: it names no known model family"
        raise SettingsError.of(what, where=str(path), allowed=", ".join(FAMILIES))
    try:
        content = read_json(folder / ORIGINS)
    except (OSError, ValueError):
        content = None  # all settings then count as set by the user
    origins = content.items() if isinstance(content, dict) else ()
    return Base(entries, {key: value for key, value in origins if isinstance(value, dict)})
