"""New lines of metrics.jsonl, and the names of their numbers in a tracker."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

METRICS = "metrics.jsonl"
STEP = "global_step"
"""The x axis of all charts."""
NAMES: Mapping[str, str] = {
    "loss": "train/loss",
    "epoch": "train/epoch",
    "samples": "train/samples",
    "tokens": "train/units",
    "skipped": "train/skipped",
    "loss_scale": "optim/loss_scale",
    "lr": "optim/lr",
    "grad_norm": "optim/grad_norm",
    "samples_per_s": "perf/samples_per_s",
    "tokens_per_s": "perf/units_per_s",
    "mfu": "perf/mfu",
    "device_memory_bytes": "memory/device_bytes",
    "host_memory_bytes": "memory/host_bytes",
    "step_time_s": "time/step_s",
    "data_time_s": "time/data_s",
    "forward_time_s": "time/forward_s",
    "backward_time_s": "time/backward_s",
    "optimizer_time_s": "time/optimizer_s",
    "eval_s": "time/eval_s",
    "rest_s": "time/rest_s",
}
"""Keys of a training line and their chart. `parts` go below train/, resource use below machine/."""
_RESOURCE = ("_percent", "_celsius")


class FileReplaced(Exception):
    """The file is no longer the one that was opened: a later process has taken over the run."""


class MetricsReader:
    """Gives each line of a JSON lines file once, while another process appends. Touches disk."""

    def __init__(self, path: Path) -> None:
        """The file may be created later."""
        self._path, self._read = path, 0
        self._file: IO[bytes] | None = None

    def lines(self, end: int | None = None) -> list[dict[str, Any]]:
        """The complete lines that were not returned yet; before byte `end`, if there is one.

        Raises FileReplaced and OSError.
        """
        self._file = self._file or self._path.open("rb")
        if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            raise FileReplaced
        self._file.seek(self._read)
        data = self._file.read(-1 if end is None else max(end - self._read, 0))
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        values = (json.loads(line) for line in complete.splitlines())
        return [line for line in values if isinstance(line, dict)]


def chart_values(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a "train" or "eval" line by chart; unknown ones are left out."""
    if line["kind"] == "eval":
        group = "eval" if line["split"] == "val" else f"eval_{line['split']}"
        values = {f"{group}/{name}": value for name, value in line["metrics"].items()}
    else:
        values = {name: line.get(key) for key, name in NAMES.items()}
        values |= {f"train/{name}": value for name, value in line.get("parts", {}).items()}
        values |= {f"optim/{key}": line[key] for key in line if key.startswith("lr.")}
        values |= {f"machine/{key}": line[key] for key in line if key.endswith(_RESOURCE)}
    # NaN and infinities are strings in metrics.jsonl: training/logging/strict_json.py.
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    return {STEP: line["step"], **numbers}
