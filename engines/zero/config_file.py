"""The DeepSpeed config that comes with the program for each engine."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def shipped(name: str) -> Any:
    """The config of an engine, by the file name in the catalog. Reads the disk."""
    return json.loads((files("gearshift.ds_configs") / "deepspeed" / name).read_text("utf-8"))
