"""result.json: the end of a run, for programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from training.callbacks.base import Callback, EvalResult, Outcome, RunInfo, Step
from training.logging.metrics import ResourceUsage, usage_fields
from training.logging.progress import Progress
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
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`job_summary` gives, at the end, the numbers of all generations of the job."""
        self._about, self._storage, self._now = about, storage, now
        self._usage, self._job_summary = usage or ResourceUsage(), job_summary
        self._train_plan: TrainPlan | None = None
        self._progress: Progress
        """Towards the end of the whole training plan, where `stop.after` ends the run earlier."""

    def start(self, train_plan: TrainPlan) -> None:
        self._train_plan = train_plan
        self._progress = Progress(replace(train_plan, stop_after=None), self._now)

    def step(self, step: Step) -> None:
        self._progress.stepped(step.step)

    def evaluated(self, result: EvalResult) -> None:
        self._progress.evaluated()

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        self._progress.saved(step)

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError, unless the run has failed already."""
        about = self._about
        try:
            content = {
                **{name: getattr(outcome, name) for name in _OF_OUTCOME},
                **{name: getattr(about, name) for name in _OF_RUN},
                "world_size": 1 if self._train_plan is None else self._train_plan.world_size,
                "estimate": self._estimate(outcome),
                "machine": usage_fields(self._usage.highest),
                **self._job_summary(),
            }
            self._storage.atomic_write(NAME, encode_bytes(content, indent=2) + b"\n")
        except OSError as error:
            if outcome.status != "failed":
                raise StorageError(self._storage.path / NAME, error) from error

    def _estimate(self, outcome: Outcome) -> dict[str, Any] | None:
        """The duration of the whole training plan, from the steps measured here.

        None: the run ended by itself, or too few steps were measured.
        """
        plan = self._train_plan
        if plan is None or outcome.steps >= plan.total_steps:
            return None
        position = self._progress.position()
        has_ended = outcome.status == "completed" and plan.stop_after is None
        if has_ended or position.remaining_s is None:
            return None
        return {
            "total_s": outcome.wall_s - self._progress.extra_s + position.remaining_s,
            "is_least": position.remaining_is_least,
            "planned_steps": plan.total_steps,
            "measured_steps": position.step - plan.first_step - 1,  # not the first; see Progress
        }
