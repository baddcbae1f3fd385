"""result.json: the end of a run, for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from training.callbacks.base import Callback, Outcome, RunInfo
from training.logging.metrics import ResourceUsage, usage_fields
from training.logging.strict_json import encode_bytes
from training.storage import Storage, StorageError
from training.train_plan import TrainPlan

NAME = "result.json"
JobSummary = Callable[[], Mapping[str, Any]]


def single_process() -> Mapping[str, Any]:
    """The job summary of a run without requeues."""
    return {"requeues": 0, "lost_steps": None, "effective_training_share": None}


class ResultWriter(Callback):
    """Writes result.json into the run folder at the end; for rank 0."""

    def __init__(
        self,
        about: RunInfo,
        storage: Storage,
        usage: ResourceUsage | None = None,
        job_summary: JobSummary = single_process,
    ) -> None:
        """`job_summary` gives, at the end, the numbers of all generations of the job."""
        self._about = about
        self._storage = storage
        self._usage = usage or ResourceUsage()
        self._job_summary = job_summary
        self._world_size = 1

    def start(self, train_plan: TrainPlan) -> None:
        """Note the number of processes."""
        self._world_size = train_plan.world_size

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError, unless the run has failed already."""
        try:
            content = _content(self._about, self._world_size, outcome)
            content["machine"] = usage_fields(self._usage.highest)
            content |= self._job_summary()
            self._storage.atomic_write(NAME, encode_bytes(content, indent=2) + b"\n")
        except OSError as error:
            if outcome.status != "failed":
                raise StorageError(self._storage.path / NAME, error) from error


def _content(about: RunInfo, world_size: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "steps": outcome.steps,
        "epochs": outcome.epochs,
        "wall_s": outcome.wall_s,
        "model": about.model,
        "mode": about.mode,
        "stage": about.stage,
        "engine": about.engine,
        "world_size": world_size,
        "parameters": about.parameters,
        "architecture": about.architecture,
        "samples": about.samples,
        "data": dict(about.data),
        "best": outcome.best,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "predicted_memory_bytes": None,
        "samples_per_s": outcome.samples_per_s,
        "timing": outcome.timing,
    }
