"""result.json: how a run ended, for programs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from training.about import About
from training.hooks import Budget, Hook, Outcome
from training.records.line_file import RunFolderError
from training.records.plain_json import encode_bytes


class Result(Hook):
    """Writes result.json into the run folder at the end; for rank 0."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._world_size = 1

    def start(self, budget: Budget) -> None:
        """Keep how many processes train."""
        self._world_size = budget.world_size

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises RunFolderError, but not over the fault of a failed run."""
        path = self._about.folder / "result.json"
        try:
            _replace(path, encode_bytes(_content(self._about, self._world_size, outcome), indent=2))
        except OSError as fault:
            if outcome.status != "failed":
                raise RunFolderError(path, fault) from fault


def _content(about: About, world_size: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "steps": outcome.steps,
        "epochs": outcome.epochs,
        "wall_s": outcome.wall_s,
        "model": about.model,
        "mode": about.mode,
        "engine": about.engine,
        "world_size": world_size,
        "parameters": about.parameters,
        "data": dict(about.data),
        "best": outcome.best,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "predicted_memory_bytes": None,
        "samples_per_s": outcome.samples_per_s,
        "requeues": 0,
    }


def _replace(path: Path, content: bytes) -> None:
    """Put `content` at `path` at once: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as file:
            file.write(content + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
