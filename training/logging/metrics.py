"""metrics.jsonl: a line for each logged step and each evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from training.callbacks.base import Action, Callback, EvalResult, Outcome, StepMetrics
from training.logging.strict_json import encode_bytes
from training.resources.monitor import ResourceUsage, named
from training.storage import LineFile, Storage, storage_errors
from training.train_plan import TrainPlan

NAME = "metrics.jsonl"


class MetricsWriter(Callback):
    """Writes `folder`/metrics.jsonl; for rank 0. Raises StorageError."""

    def __init__(
        self, folder: Path, gauges: ResourceUsage | None = None, door: Path | None = None
    ) -> None:
        self._path, self._door = folder / NAME, door
        self._file: LineFile | None = None
        self._gauges = gauges or ResourceUsage()

    def start(self, train_plan: TrainPlan) -> None:
        """Open the file, from which `cut` has taken what comes again."""
        self._lines()

    def logged(self, line: StepMetrics) -> None:
        """A "train" line."""
        self._lines().write(encode_bytes(_train(line) | named(self._gauges.newest)))

    def evaluated(self, evaluation: EvalResult) -> Action:
        """An "eval" line."""
        line = {
            "kind": "eval",
            "step": evaluation.step,
            "split": evaluation.split,
            "metrics": evaluation.metrics,
        }
        self._lines().write(encode_bytes(line))
        return Action.NOTHING

    def end(self, outcome: Outcome) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lines(self) -> LineFile:
        if self._file is None:
            self._file = LineFile(self._path, self._door)
        return self._file


def _train(line: StepMetrics) -> dict[str, Any]:
    known: dict[str, Any] = {
        "kind": "train",
        "step": line.step,
        "epoch": line.epoch,
        "samples": line.samples,
        "tokens": line.units,
        "loss": line.loss,
        "lr": line.lr,
        "grad_norm": line.grad_norm,
        "step_time_s": line.step_time_s,
        "data_time_s": line.data_time_s,
        "samples_per_s": line.samples_per_s,
        "tokens_per_s": line.units_per_s,
        "device_memory_bytes": line.device_memory_bytes,
        "host_memory_bytes": line.host_memory_bytes,
        "skipped": line.skipped,
    }
    if line.parts:
        known["parts"] = line.parts
    if line.loss_scale is not None:
        known["loss_scale"] = line.loss_scale
    if line.mfu is not None:
        known["mfu"] = line.mfu
    return known


def cut(folder: Path, step: int, evaluated_at: int | None, door: Path | None = None) -> None:
    """Take out the lines that a run which goes on from `step` will write again. Touches disk.

    Those are all of later steps, an evaluation after `step` that its checkpoint knows nothing of
    (`evaluated_at` is the last that it knows), and a line that a kill left unfinished.
    Raises StorageError.
    """
    path = folder / NAME
    if not path.exists():
        return
    with storage_errors(path):
        content, end = path.read_bytes(), 0
        for line in content.splitlines(keepends=True):
            if not _stays(line, step, evaluated_at):
                break  # steps only grow from line to line
            end += len(line)
        if door is not None:
            Storage(folder, door).atomic_write(NAME, content[:end])
        else:
            os.truncate(path, end)  # in place: somebody may be following it


def _stays(line: bytes, step: int, evaluated_at: int | None) -> bool:
    if not line.endswith(b"\n"):
        return False
    found = json.loads(line)
    if found["step"] == step and found["kind"] == "eval":
        return evaluated_at == step
    return bool(found["step"] <= step)
