"""The cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "GEARSHIFT_CACHE"


def folder() -> Path:
    """The cache folder: $GEARSHIFT_CACHE, or the cache folder of the system."""
    if own := os.environ.get(VARIABLE):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/gearshift").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gearshift"
