"""events.jsonl: what happened in a run, when, and at which step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from training.callbacks.base import Action, Callback, EvalResult, Outcome, Step
from training.logging.strict_json import encode_bytes
from training.storage import LineFile, StorageError
from training.train_plan import TrainPlan

NAME = "events.jsonl"


def _now() -> datetime:
    return datetime.now(timezone.utc)


def append(
    folder: Path,
    kind: str,
    step: int,
    facts: Mapping[str, object],
    now: Callable[[], datetime] = _now,
    door: Path | None = None,
) -> None:
    """Add one line to `folder`/events.jsonl, of which no rank is writing now. Touches the disk."""
    file = LineFile(folder / NAME, door)
    try:
        file.write(_line(now(), kind, step, facts))
    finally:
        file.close()


def _line(time: datetime, kind: str, step: int, facts: Mapping[str, object]) -> bytes:
    text = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return encode_bytes({"time": text, "kind": kind, "step": step, "facts": facts})


class EventsWriter(Callback):
    """Writes {"time", "kind", "step", "facts"} lines; one on every rank. Raises StorageError.

    What all ranks see alike is written by rank 0 alone, into events.jsonl. What one rank alone saw
    comes through `tell`; other ranks write that into events-rankN.jsonl, as two machines cannot
    safely append to one file.
    """

    def __init__(
        self,
        folder: Path,
        rank: int = 0,
        now: Callable[[], datetime] = _now,
        step: int = 0,
        door: Path | None = None,
    ) -> None:
        """`step` is the one that lines tell before a run has started."""
        self._path = folder / (NAME if rank == 0 else f"events-rank{rank}.jsonl")
        self._door = door
        self._speaks = rank == 0
        self._now = now
        self._step = step
        self._file: LineFile | None = None

    def start(self, train_plan: TrainPlan) -> None:
        """A "started" line."""
        self._step = train_plan.first_step
        self.event("started", asdict(train_plan))

    def step(self, step: Step) -> Action:
        """Keep the step."""
        self._step = step.step
        return Action.NOTHING

    def evaluated(self, evaluation: EvalResult) -> Action:
        """An "evaluated" line."""
        self.event("evaluated", asdict(evaluation))
        return Action.NOTHING

    def saved(self, folder: Path, step: int) -> None:
        """A "saved" line."""
        self.event("saved", {"folder": folder.name, "step": step})

    def event(self, kind: str, facts: Mapping[str, object]) -> None:
        """A line of an event that every rank is told of."""
        if self._speaks:
            self.tell(kind, facts)

    def tell(self, kind: str, facts: Mapping[str, object]) -> None:
        """A line of an event of this rank."""
        if self._file is None:
            self._file = LineFile(self._path, self._door)
        self._file.write(_line(self._now(), kind, self._step, facts))

    def end(self, outcome: Outcome) -> None:
        """A "stopped" line, unless the fault of a failed run keeps it from being written."""
        facts = {
            "status": outcome.status,
            "reason": outcome.reason,
            "exit_code": outcome.exit_code,
            "steps": outcome.steps,
        }
        if outcome.status == "failed":
            with suppress(StorageError):
                self.event("stopped", facts)
        else:
            self.event("stopped", facts)
        self.close()

    def close(self) -> None:
        """Give back the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
