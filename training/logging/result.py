"""result.json: the end of a run, for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from training.callbacks.base import Callback, Facts, Outcome, RunInfo
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
JobSummary = Callable[[], Facts]


def single_process() -> Facts:
    """The job summary of a run without requeues."""
    return {"requeues": 0, "lost_steps": None}


@dataclass
class ResultWriter(Callback):
    """Writes result.json into the run folder at the end; for rank 0."""

    about: RunInfo
    storage: Storage
    usage: ResourceUsage = field(default_factory=ResourceUsage)
    job_summary: JobSummary = single_process
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
                "machine": usage_fields(self.usage.highest),
                **self.job_summary(),
            }
            self.storage.atomic_write(NAME, encode_bytes(content, indent=2) + b"\n")
        except OSError as error:
            if outcome.status != "failed":
                raise StorageError(self.storage.path / NAME, error) from error
