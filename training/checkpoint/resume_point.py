"""What a run goes on from: a checkpoint, and what begins anew in spite of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from models.base import DataError

if TYPE_CHECKING:
    from training.checkpoint.reader import Checkpoint


@dataclass(frozen=True)
class Starts:
    """Where the order of the data and the schedule began, in steps of the run."""

    data: int = 0
    schedule: int = 0
    samples_before: int = 0
    """Samples seen when the order of the data began."""


@dataclass(frozen=True)
class Before:
    """The checkpoint, whole and checked, and how the run came to it."""

    checkpoint: Checkpoint
    reset: frozenset[str] = frozenset()
    """Of "optimizer", "schedule", "data"."""
    changes: Sequence[str] = ()
    """What differs from the settings that it was made with, a line each."""
    damaged: Mapping[int, str] = field(default_factory=dict)
    """Later checkpoints that cannot be used, by step, and why."""

    @property
    def step(self) -> int:
        """Updates taken before."""
        return self.checkpoint.manifest.step

    @property
    def starts(self) -> Starts:
        """Those of the run that goes on."""
        known = Starts(**self.fact("starts", {}))
        return Starts(
            data=self.step if "data" in self.reset else known.data,
            schedule=self.step if "schedule" in self.reset else known.schedule,
            samples_before=(
                self.checkpoint.manifest.samples if "data" in self.reset else known.samples_before
            ),
        )

    def fact(self, name: str, missing: Any = None) -> Any:
        """What the loop kept under `name`; `missing` where the checkpoint knows nothing of it."""
        found = self.checkpoint.facts.get(name)
        return missing if found is None else found

    def check_data(self, data: Mapping[str, Any]) -> None:
        """Refuse data that is not what was trained on. Raises DataError."""
        known = self.fact("data", {})
        if "data" in self.reset or not known:
            return
        for name, text in (("samples", "{} samples"), ("fingerprint", "a content of {}")):
            if known[name] != data[name]:
                raise DataError(
                    f"the training data has changed: {text.format(data[name])} where the"
                    f" checkpoint of step {self.step} was made with {text.format(known[name])}",
                    where=str(self.checkpoint.folder),
                    allowed="the data as it was; or --reset data, which begins its order anew",
                    fix="--reset data",
                )

    def tell(self, event: Callable[[str, Mapping[str, object]], None]) -> None:
        """Say what the run goes on from, and which later checkpoints cannot be used."""
        event("resumed", self.described())
        for text in self.damaged.values():
            event("warning", {"text": f"{text}; an earlier one is used"})

    def described(self) -> dict[str, Any]:
        """The facts of the event "resumed"."""
        manifest = self.checkpoint.manifest
        return {
            "checkpoint": self.checkpoint.folder.name,
            "written_by": {"engine": manifest.engine, "world_size": manifest.world_size},
            "changes": list(self.changes),
            "reset": sorted(self.reset),
            "damaged": {f"{step}": text for step, text in self.damaged.items()},
        }
