"""events.jsonl: what happened in a run, when, and at which step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from gearshift.training.callbacks.base import Callback, EvalResult, Facts, Outcome, Step
from gearshift.training.logging.strict_json import encode_bytes
from gearshift.training.storage import LineFile, Storage
from gearshift.training.train_plan import TrainPlan

NAME = "events.jsonl"
_now = partial(datetime.now, timezone.utc)


def append_event(storage: Storage, kind: str, step: int, facts: Facts) -> None:
    """Add one line to events.jsonl while no rank writes to it. Raises StorageError."""
    storage.append_line(NAME, _line(_now(), kind, step, facts))


def _line(time: datetime, kind: str, step: int, facts: Facts) -> bytes:
    text = time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return encode_bytes({"time": text, "kind": kind, "step": step, "facts": facts})


class EventsWriter(Callback):
    """Writes {"time", "kind", "step", "facts"} lines; one on every rank. Raises StorageError.

    Rank 0 writes the events that all ranks see into events.jsonl. Events of a single rank come
    through `rank_event`; the other ranks write them into events-rankN.jsonl, because two machines
    cannot safely append to one file.
    """

    def __init__(self, storage: Storage, rank: int = 0, now: Callable[[], datetime] = _now) -> None:
        self._storage = storage
        self._rank = rank
        self._now = now
        self._step = 0
        self._file: LineFile | None = None

    def start(self, train_plan: TrainPlan) -> None:
        self._step = train_plan.first_step
        self.event("started", asdict(train_plan))

    def step(self, step: Step) -> None:
        self._step = step.step

    def evaluated(self, evaluation: EvalResult) -> None:
        self.event("evaluated", asdict(evaluation))

    def saved(self, folder: Path, step: int, seconds: float) -> None:
        self.event("saved", {"folder": folder.name, "step": step, "seconds": seconds})

    def event(self, kind: str, facts: Facts) -> None:
        """Write an event that every rank sees; rank 0 only."""
        if self._rank == 0:
            self.rank_event(kind, facts)

    def rank_event(self, kind: str, facts: Facts) -> None:
        if self._file is None:
            name = NAME if self._rank == 0 else f"events-rank{self._rank}.jsonl"
            self._file = self._storage.open_lines(name)
        self._file.write(_line(self._now(), kind, self._step, facts))

    def end(self, outcome: Outcome) -> None:
        self.event(
            "stopped", {n: getattr(outcome, n) for n in ("status", "reason", "exit_code", "steps")}
        )
        if self._file is not None:
            self._file.close()
            self._file = None
