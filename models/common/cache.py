"""Arrays that are made once and read from disk thereafter, mapped into memory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

VARIABLE = "GEARSHIFT_CACHE"
_FACTS = "made_from.json"


def folder() -> Path:
    """Where made data is kept: $GEARSHIFT_CACHE, or the system's place for caches."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/gearshift").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gearshift"


def arrays(
    name: str, made_from: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """What `make` gives, read-only; mapped from disk where it was made before.

    `made_from` is all that it depends on, as JSON: the version of the maker, seed, sizes. A cache
    that cannot be written is done without. Reads and writes the disk.
    """
    facts = json.dumps({"name": name, **made_from}, sort_keys=True)
    place = folder() / f"{name}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    if (found := _read(place, facts)) is not None:
        return found
    made = {key: np.ascontiguousarray(array) for key, array in make().items()}
    try:
        _write(place, facts, made)
    except OSError:
        return made
    return _read(place, facts) or made


def _read(place: Path, facts: str) -> dict[str, np.ndarray] | None:
    """What lies at `place`; None if nothing whole lies there."""
    try:
        if (place / _FACTS).read_text(encoding="utf-8") != facts:
            return None
        return {
            path.stem: np.load(path, mmap_mode="r", allow_pickle=False)
            for path in sorted(place.glob("*.npy"))
        }
    except (OSError, ValueError):
        return None


def _write(place: Path, facts: str, made: Mapping[str, np.ndarray]) -> None:
    """Written beside its place and moved there: other processes see all of it or nothing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        for key, array in made.items():
            np.save(partial / f"{key}.npy", array, allow_pickle=False)
        (partial / _FACTS).write_text(facts, encoding="utf-8")
        if place.exists() and _read(place, facts) is None:
            shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)  # another process was first, or no room
        if _read(place, facts) is None:
            raise
