"""events.jsonl: what happened in a run, when, and at which step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from training.hooks import Ask, Budget, Evaluation, Hook, Outcome, Step
from training.records.line_file import LineFile, RunFolderError
from training.records.plain_json import encode_bytes


def _now() -> datetime:
    return datetime.now(timezone.utc)


class Events(Hook):
    """Writes {"time", "kind", "step", "facts"} lines; one on every rank. Raises RunFolderError.

    What all ranks see alike is written by rank 0 alone, into events.jsonl. What one rank alone saw
    comes through `tell`; other ranks write that into events-rankN.jsonl, as two machines cannot
    safely append to one file.
    """

    def __init__(self, folder: Path, rank: int = 0, now: Callable[[], datetime] = _now) -> None:
        self._path = folder / ("events.jsonl" if rank == 0 else f"events-rank{rank}.jsonl")
        self._speaks = rank == 0
        self._now = now
        self._step = 0
        self._file: LineFile | None = None

    def start(self, budget: Budget) -> None:
        """A "started" line."""
        self._step = budget.first_step
        self.event("started", asdict(budget))

    def step(self, step: Step) -> Ask:
        """Keep the step."""
        self._step = step.step
        return Ask.NOTHING

    def evaluated(self, evaluation: Evaluation) -> Ask:
        """An "evaluated" line."""
        self.event("evaluated", asdict(evaluation))
        return Ask.NOTHING

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
            self._file = LineFile(self._path)
        time = self._now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": time, "kind": kind, "step": self._step, "facts": facts}
        self._file.write(encode_bytes(line))

    def end(self, outcome: Outcome) -> None:
        """A "stopped" line, unless the fault of a failed run keeps it from being written."""
        facts = {
            "status": outcome.status,
            "reason": outcome.reason,
            "exit_code": outcome.exit_code,
            "steps": outcome.steps,
        }
        if outcome.status == "failed":
            with suppress(RunFolderError):
                self.event("stopped", facts)
        else:
            self.event("stopped", facts)
        if self._file is not None:
            self._file.close()
