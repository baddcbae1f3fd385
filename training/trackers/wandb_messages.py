"""What the process that W&B lives in is told first and last, from a run or from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.dotted import nested
from training.trackers.companion import Message

PROCESS = "training.trackers.wandb_process"
_AGAIN = 75
"""The exit code of a run that is to be run again."""


def opening(
    folder: Path,
    project: str | None,
    settings: Mapping[str, Any],
    origins: Mapping[str, str],
    **more: Any,
) -> Message:
    """The plan: which W&B run it is, and its config; settings and origins by dotted key.

    `more`: `run` (facts for the config), `tags`, `first_step`, `went_back`, `send`, `mode`.
    """
    config = {**nested(settings), "origins": nested(origins), "run": more.pop("run")}
    return {
        "kind": "plan",
        "folder": str(folder.absolute()),
        "name": folder.absolute().name,
        "project": project,
        "config": config,
        "pid": os.getpid(),
        "mode": None,
        "completes": False,
        **more,
    }


def lines(metrics: Path, spent: Mapping[str, float]) -> Message | None:
    """That `metrics` has grown to what it is now; `spent` belongs to its newest line. Reads disk.

    None: there is no such file.
    """
    try:
        return {"kind": "lines", "upto": metrics.stat().st_size, "spent": spent}
    except OSError:  # the run will say so itself
        return None


def ending(result: Mapping[str, Any], exit_code: int) -> Message:
    """The end, with what result.json tells of it."""
    names = ("status", "reason", "steps", "epochs", "wall_s", "samples_per_s")
    summary = {f"result/{name}": result.get(name) for name in names}
    peaks = (result.get("peak_memory_bytes") or {}).items()
    summary |= {f"result/peak_{name}_bytes": value for name, value in peaks}
    summary |= {f"best/{name}": value for name, value in (result.get("best") or {}).items()}
    return {
        "kind": "end",
        "exit_code": exit_code,
        "goes_on": exit_code == _AGAIN,
        "summary": {name: value for name, value in summary.items() if value is not None},
    }


def project_of(typed: Sequence[str]) -> str | None:
    """The project that a setting `track` names for W&B; None: none, or no W&B."""
    found = (text.partition(":") for text in typed)
    return next((detail for name, _, detail in found if name == "wandb" and detail), None)
