"""A file of JSON lines that another process appends to, read as far as it has grown."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any


class Replaced(Exception):
    """The file is no longer the one that was opened: its run is another process's by now."""


class MetricsReader:
    """The lines of `path`, each once. Touches disk."""

    def __init__(self, path: Path) -> None:
        """The file may come to be later."""
        self._path = path
        self._file: IO[bytes] | None = None
        self._read = 0

    def lines(self, upto: int) -> list[dict[str, Any]]:
        """Those that are whole before byte `upto` and were not given before.

        Raises Replaced, and OSError.
        """
        if upto <= self._read:
            return []
        if self._file is None:
            self._file = self._path.open("rb")
        if self._path.stat().st_ino != os.fstat(self._file.fileno()).st_ino:
            raise Replaced
        data = self._file.read(upto - self._read)
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        self._file.seek(self._read)
        found = (json.loads(line) for line in whole.splitlines())
        return [line for line in found if isinstance(line, dict)]


STEP = "global_step"
"""What all charts are drawn over."""
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
    "eval_s": "time/eval_s",
    "rest_s": "time/rest_s",
}
"""What a training line calls a number, and what it is called here. What `parts` holds stands below
train/, and the machine's gauges below machine/."""
_GAUGE = "_percent"


def row(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a "train" or "eval" line; those that are not known are left out."""
    if line["kind"] == "eval":
        group = "eval" if line["split"] == "val" else f"eval_{line['split']}"
        found = {f"{group}/{name}": value for name, value in line["metrics"].items()}
    else:
        found = {name: line.get(key) for key, name in NAMES.items()}
        found |= {f"train/{name}": value for name, value in line.get("parts", {}).items()}
        gauges = (key for key in line if key.endswith(_GAUGE))
        found |= {f"machine/{key}": line[key] for key in gauges}
    # NaN and infinities are words in metrics.jsonl; see training/logging/strict_json.py.
    numbers = {name: float(value) for name, value in found.items() if value is not None}
    return {STEP: line["step"], **numbers}
