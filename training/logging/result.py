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
_OF_OUTCOME = (
    *("status", "reason", "steps", "epochs", "wall_s", "time_split", "best", "test", "timing"),
    *("peak_memory_bytes", "samples_per_s"),
)
_OF_RUN = (
    *("model", "mode", "stage", "engine", "parameters", "architecture", "samples", "data"),
    *("trainable_parameters", "predicted_memory_bytes", "environment"),
)
JobSummary = Callable[[], Mapping[str, Any]]


def single_process() -> Mapping[str, Any]:
    """The job summary of a run without requeues."""
    return {"requeues": 0, "lost_steps": None}


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
        self._about, self._storage = about, storage
        self._usage, self._job_summary = usage or ResourceUsage(), job_summary
        self._train_plan: TrainPlan | None = None

    def start(self, train_plan: TrainPlan) -> None:
        self._train_plan = train_plan

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError, unless the run has failed already."""
        about = self._about
        try:
            content = {
                **{name: getattr(outcome, name) for name in _OF_OUTCOME},
                **{name: getattr(about, name) for name in _OF_RUN},
                "world_size": 1 if self._train_plan is None else self._train_plan.world_size,
                "machine": usage_fields(self._usage.highest),
                **self._job_summary(),
            }
            self._storage.atomic_write(NAME, encode_bytes(content, indent=2) + b"\n")
        except OSError as error:
            if outcome.status != "failed":
                raise StorageError(self._storage.path / NAME, error) from error
