"""metrics.jsonl: a line for each logged step and each evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.hooks import Ask, Evaluation, Hook, Logged, Outcome
from training.records.line_file import LineFile
from training.records.plain_json import encode_bytes


class Metrics(Hook):
    """Writes `folder`/metrics.jsonl; for rank 0. Raises RunFolderError."""

    def __init__(self, folder: Path) -> None:
        self._file = LineFile(folder / "metrics.jsonl")

    def logged(self, line: Logged) -> None:
        """A "train" line."""
        self._file.write(encode_bytes(_train(line)))

    def evaluated(self, evaluation: Evaluation) -> Ask:
        """An "eval" line."""
        line = {
            "kind": "eval",
            "step": evaluation.step,
            "split": evaluation.split,
            "metrics": evaluation.metrics,
        }
        self._file.write(encode_bytes(line))
        return Ask.NOTHING

    def end(self, outcome: Outcome) -> None:
        """Close the file."""
        self._file.close()


def _train(line: Logged) -> dict[str, Any]:
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
