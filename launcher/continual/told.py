"""What a person and programs are told while no rank runs: lines, events, the run's result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.continual.ledger import Ledger
from launcher.run_folder import run_folder
from training.callbacks.base import Outcome
from training.logging.events import EventsWriter
from training.logging.strict_json import encode_bytes
from training.storage import atomic_write, storage_errors


@dataclass(frozen=True)
class Told:
    """The console, log.txt, events.jsonl and result.json of one run folder. Touches the disk."""

    folder: Path
    console: bool

    def say(self, text: str) -> None:
        """A line for the person, kept in the log."""
        if self.console:
            print(text, flush=True)
        run_folder.log(self.folder, text)

    def event(self, kind: str, facts: Mapping[str, Any], step: int) -> None:
        """A line of events.jsonl. Raises StorageError."""
        events = EventsWriter(self.folder, step=step)
        events.tell(kind, facts)
        events.close()

    def result(self) -> dict[str, Any] | None:
        """What result.json says; None: there is none that can be read."""
        try:
            found = json.loads((self.folder / run_folder.RESULT).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def account(self, ledger: Ledger, changes: Mapping[str, Any]) -> None:
        """Put the experiences, and how the run ended since, into result.json. Raises StorageError."""
        found = self.result()
        if found is None:
            return
        experiences = [
            {
                "number": one.number,
                "state": one.state,
                "files": len(one.files),
                "begun_at": one.begun_at,
                "ended_at": one.ended_at,
                **{name: (one.learnt or {}).get(name) for name in ("metric", "old", "new")},
                "reason": one.reason,
            }
            for one in ledger.experiences
            if one.number
        ]
        path = self.folder / run_folder.RESULT
        with storage_errors(path):
            atomic_write(
                path, encode_bytes({**found, **changes, "experiences": experiences}, indent=2)
            )

    def outcome(self) -> dict[str, Any]:
        """How the last training of the run ended: the fields of training.callbacks.base.Outcome."""
        found = self.result() or {}
        return {field.name: found.get(field.name) for field in fields(Outcome)}

    def began(self) -> float | None:
        """When the run began, in seconds since the epoch; None: nobody knows."""
        try:
            with (self.folder / run_folder.EVENTS).open(encoding="utf-8") as file:
                text = json.loads(file.readline())["time"]
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except (OSError, ValueError, KeyError, TypeError):
            return None
