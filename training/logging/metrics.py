"""metrics.jsonl, a line per logged step and evaluation; result.json, the end of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from training.callbacks.base import TEST, Callback, EvalResult, Facts, Numbers, Outcome, RunInfo, StepMetrics
from training.logging.strict_json import encode_bytes
from training.step_timer import PARTS_OF_STEP
from training.storage import LineFile, Storage, StorageError, storage_errors
from training.train_plan import TrainPlan

NAME, RESULT = "metrics.jsonl", "result.json"
OF_PART = "lr."
"""Before the name of a part in the key of its learning rate."""
_NAMES = {"units": "tokens", "units_per_s": "tokens_per_s"}  # Fields of StepMetrics whose key differs
# Fields without a key unless they have a value.
_IF_KNOWN = ("parts", "loss_scale", "mfu", *(f"{part}_time_s" for part in PARTS_OF_STEP))
# Of result.json, by the record that has them.
_OF_OUTCOME = (
    *("status", "reason", "steps", "epochs", "wall_s", "time_split", "best", "test", "timing"),
    *("peak_memory_bytes", "samples_per_s"),
)
_OF_RUN = (
    *("model", "mode", "stage", "engine", "parameters", "architecture", "samples", "data"),
    *("trainable_parameters", "predicted_memory_bytes", "environment"),
)


def usage_fields(uses: Numbers) -> dict[str, float]:
    """Uses under their keys in files: `ram_percent`, `temperature_celsius`."""
    return {
        f"{name}_{'celsius' if name == 'temperature' else 'percent'}": round(value, 1)
        for name, value in uses.items()
    }


class MetricsWriter(Callback):
    """Writes metrics.jsonl into the run folder; for rank 0. Raises StorageError."""

    def __init__(self, storage: Storage, usage: Callable[[], Numbers] = dict) -> None:
        """`usage` gives the use of the machine by resource."""
        self._storage, self._usage = storage, usage
        self._file: LineFile | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """Open the file; `truncate` has removed the lines that will be written again."""
        self._open()

    def logged(self, line: StepMetrics) -> None:
        values = {
            _NAMES.get(name, name): value
            for name, value in vars(line).items()
            if name != "lrs" and not (name in _IF_KNOWN and value in (None, {}))
        }
        lrs = {f"{OF_PART}{part}": lr for part, lr in line.lrs.items()}
        usage = usage_fields(self._usage())
        self._open().write(encode_bytes({"kind": "train", **values, **lrs, **usage}))

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


def single_process() -> Facts:
    """The job summary of a run without requeues."""
    return {"requeues": 0, "lost_steps": None}


@dataclass
class ResultWriter(Callback):
    """Writes result.json into the run folder at the end; for rank 0."""

    about: RunInfo
    storage: Storage
    usage: Callable[[], Numbers] = dict
    """Gives the highest use of the machine by resource."""
    job_summary: Callable[[], Facts] = single_process
    """Gives, at the end, the numbers of all generations of the job."""
    world_size: int = 1

    def start(self, train_plan: TrainPlan) -> None:
        self.world_size = train_plan.world_size

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError, unless the run has failed already."""
        try:
            content = {
                **{name: getattr(outcome, name) for name in _OF_OUTCOME},
                **{name: getattr(self.about, name) for name in _OF_RUN},
                "world_size": self.world_size,
                "machine": usage_fields(self.usage()),
                **self.job_summary(),
            }
            self.storage.atomic_write(RESULT, encode_bytes(content, indent=2) + b"\n")
        except OSError as error:
            if outcome.status != "failed":
                raise StorageError(self.storage.path / RESULT, error) from error
