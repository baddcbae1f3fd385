"""The names a person may type, from the tables in use; for lists, completion and messages."""

from __future__ import annotations

from typing import get_args

from engines.catalog import ENGINES
from launcher.config import presets
from launcher.config.provenance import ResetPart
from launcher.config.schema import config_of, setting_infos
from models.catalog import FAMILIES, stages_of
from training.settings import TRACKERS


def names(kind: str) -> list[str]:
    """All `models` (with their sizes), `modes`, ..., or setting `keys`; see options.Values."""
    if kind == "models":
        sized = [f"{family}:{size}" for family in FAMILIES for size in config_of(family).SIZES]
        return [*FAMILIES, *sized]
    if kind == "modes":
        return list(presets.modes())
    if kind == "engines":
        return list(ENGINES)
    if kind == "stages":
        found = (stage.name for family in FAMILIES for stage in stages_of(family))
        return list(dict.fromkeys(found))
    if kind == "trackers":
        return list(TRACKERS)
    if kind == "parts":
        return list(get_args(ResetPart))
    return sorted({key for family in FAMILIES for key in setting_infos(family)})


def choices(key: str) -> list[str]:
    """What the setting `key` may be, where that is a closed list."""
    family = next(family for family in FAMILIES if key in setting_infos(family))
    allowed = setting_infos(family)[key].allowed
    return list(allowed) if isinstance(allowed, tuple) else []
