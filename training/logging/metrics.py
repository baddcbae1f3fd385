"""metrics.jsonl: one line per logged step and per evaluation, with the use of the machine."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

from training.callbacks.base import TEST, Callback, EvalResult, Facts, Numbers, Outcome, StepMetrics
from training.logging.strict_json import encode_bytes
from training.step_timer import PARTS_OF_STEP
from training.storage import LineFile, Storage, storage_errors
from training.train_plan import TrainPlan

NAME = "metrics.jsonl"
OF_PART = "lr."
"""Before the name of a part in the key of its learning rate."""
_NAMES = {"units": "tokens", "units_per_s": "tokens_per_s"}  # Fields of StepMetrics whose key differs
# Fields without a key unless they have a value.
_IF_KNOWN = ("loss_scale", "mfu", *(f"{part}_time_s" for part in PARTS_OF_STEP))


class ResourceUsage:
    """Use of the machine by resource: newest and highest; empty without a monitor."""

    def __init__(self) -> None:
        self.newest: Numbers = {}
        self.highest: Numbers = {}

    def add(self, uses: Numbers) -> None:
        """Add a reading; called in the thread of the monitor."""
        highest = {name: max(value, self.highest.get(name, 0.0)) for name, value in uses.items()}
        self.newest, self.highest = uses, {**self.highest, **highest}


def usage_fields(uses: Numbers) -> dict[str, float]:
    """Uses under their keys in files: `ram_percent`, `temperature_celsius`."""
    return {
        f"{name}_{'celsius' if name == 'temperature' else 'percent'}": round(value, 1)
        for name, value in uses.items()
    }


class MetricsWriter(Callback):
    """Writes metrics.jsonl into the run folder; for rank 0. Raises StorageError."""

    def __init__(self, storage: Storage, usage: ResourceUsage | None = None) -> None:
        self._storage, self._usage = storage, usage or ResourceUsage()
        self._file: LineFile | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """Open the file; `truncate` has removed the lines that will be written again."""
        self._open()

    def logged(self, line: StepMetrics) -> None:
        known = {_NAMES.get(name, name): value for name, value in vars(line).items()}
        unknown = {name for name in _IF_KNOWN if known[name] is None} | (
            {"parts"} if not line.parts else set()
        )
        known |= {f"{OF_PART}{part}": lr for part, lr in known.pop("lrs").items()}
        known = {name: value for name, value in known.items() if name not in unknown}
        self._open().write(encode_bytes({"kind": "train", **known, **usage_fields(self._usage.newest)}))

    def evaluated(self, evaluation: EvalResult) -> None:
        names = ("step", "split", "samples", "split_samples", "metrics")
        values = {name: getattr(evaluation, name) for name in names}
        self._open().write(encode_bytes({"kind": "eval", **values}))

    def end(self, outcome: Outcome) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> LineFile:
        if self._file is None:
            self._file = self._storage.open_lines(NAME)
        return self._file


def truncate(storage: Storage, step: int, evaluated_at: int | None, *, is_end: bool = False) -> None:
    """Remove the lines that a run resumed from `step` will write again. Touches disk.

    These are the lines of later steps, an evaluation after `step` that its checkpoint does not know
    (`evaluated_at` is the last one it knows), that of the test split if `step` `is_end`, and an
    incomplete line. Raises StorageError.
    """
    path = storage.path / NAME
    if not path.exists():
        return
    with storage_errors(path):
        content, end = path.read_bytes(), 0
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            written = json.loads(line)
            at = written.get("step", step - 1)  # else of another program
            stays = at <= step
            if at == step and written["kind"] == "eval":
                stays = evaluated_at == step and not (is_end and written["split"] == TEST)
            if not stays:
                break  # steps only grow from line to line
            end += len(line)
        os.truncate(path, end)  # in place: another process may be following it


def step_metrics(line: Facts) -> StepMetrics:
    """The "train" line that `MetricsWriter` wrote. Raises KeyError, TypeError or ValueError."""
    values: dict[str, Any] = {
        field.name: line.get(_NAMES.get(field.name, field.name)) for field in fields(StepMetrics)
    }
    # NaN and infinities are strings in metrics.jsonl: training/logging/strict_json.py.
    numbers = {name: float(line[name]) for name in ("loss", "grad_norm")}
    parts = {name: float(value) for name, value in line.get("parts", {}).items()}
    lrs = {key.removeprefix(OF_PART): line[key] for key in line if key.startswith(OF_PART)}
    return StepMetrics(**(values | numbers | {"parts": parts, "lrs": lrs}))


def usage_of(line: Facts) -> dict[str, float]:
    """The uses in percent that `usage_fields` wrote into a line, by resource."""
    suffix = "_percent"
    return {key.removesuffix(suffix): line[key] for key in line if key.endswith(suffix)}
