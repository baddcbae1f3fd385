"""result.json: how a run ended, for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.callbacks.base import Callback, Outcome, RunInfo
from training.logging.strict_json import encode_bytes
from training.resources.monitor import ResourceUsage, named
from training.storage import Storage, StorageError
from training.train_plan import TrainPlan

JobSummary = Callable[[], Mapping[str, Any]]


def single_process() -> Mapping[str, Any]:
    """The account of a run of which nobody knows that it took more than one process."""
    return {"requeues": 0, "lost_steps": None, "effective_training_share": None}


class ResultWriter(Callback):
    """Writes result.json into the run folder at the end; for rank 0."""

    def __init__(
        self,
        about: RunInfo,
        gauges: ResourceUsage | None = None,
        account: JobSummary = single_process,
        door: Path | None = None,
    ) -> None:
        """`account` tells, at the end, of the processes that the run took one after the other."""
        self._about = about
        self._account, self._door = account, door
        self._gauges = gauges or ResourceUsage()
        self._world_size = 1

    def start(self, train_plan: TrainPlan) -> None:
        """Keep how many processes train."""
        self._world_size = train_plan.world_size

    def end(self, outcome: Outcome) -> None:
        """Write the file. Raises StorageError, but not over the fault of a failed run."""
        path = self._about.folder / "result.json"
        try:
            content = _content(self._about, self._world_size, outcome)
            content["machine"] = named(self._gauges.highest)
            content |= self._account()
            content_bytes = encode_bytes(content, indent=2) + b"\n"
            Storage(path.parent, self._door).atomic_write(path.name, content_bytes)
        except OSError as fault:
            if outcome.status != "failed":
                raise StorageError(path, fault) from fault


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
