"""The keys of a DeepSpeed config, and which of them the settings decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_KEYS: dict[str, Any] = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))

SETTINGS_BLOCKS: dict[str, str] = _KEYS["settings_blocks"]
"""Blocks that repeat a setting, by its key; they are checked, not passed to DeepSpeed."""

SETTINGS_VALUES = frozenset(_KEYS["settings_values"])
"""Single values that repeat a setting."""

FIXED: dict[str, Any] = _KEYS["fixed"]
"""Values that these engines require."""

FREE = frozenset(_KEYS["free"])
"""Keys that are passed to DeepSpeed as written."""

UNSUPPORTED: dict[str, str | None] = _KEYS["unsupported"]
"""Keys that these engines do not support, with the setting to use instead."""

ZERO = frozenset(_KEYS["zero"])
"""Keys of `zero_optimization` that are passed to DeepSpeed as written."""

ZERO_FIXED: dict[str, Any] = _KEYS["zero_fixed"]
"""Values of `zero_optimization` that these engines require."""

ZERO_UNSUPPORTED: dict[str, str | None] = _KEYS["zero_unsupported"]
"""Keys of `zero_optimization` with a state that a checkpoint cannot represent."""

OFFLOAD = {key: frozenset(allowed) for key, allowed in _KEYS["offload"].items()}
"""Keys of the two offload blocks that are passed to DeepSpeed as written."""

OFFLOAD_UNSUPPORTED = frozenset(_KEYS["offload_unsupported"])
"""Keys of the offload blocks for NVMe, partial offload or DeepSpeed's own Adam only."""


def reason(key: str) -> str:
    """The reason for a fixed value or an unsupported key, by its dotted name, after a colon."""
    return f": {_KEYS['why'][key]}" if key in _KEYS["why"] else ""
