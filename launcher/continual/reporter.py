"""Output of a continual run while no rank runs: console, log.txt, events.jsonl, result.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.run_folder import run_folder
from launcher.run_folder.experiences import Ledger
from training.callbacks.base import Outcome
from training.logging.events import append_event
from training.logging.strict_json import encode_bytes
from training.storage import Storage, atomic_write, storage_errors


@dataclass(frozen=True)
class Reporter:
    """Writes to the console and the files of one run folder. Touches the disk."""

    folder: Path
    console: bool

    def print(self, text: str) -> None:
        """Print a line, and add it to the log."""
        if self.console:
            print(text, flush=True)
        run_folder.append_log(self.folder, text)

    def event(self, kind: str, facts: Mapping[str, Any], step: int) -> None:
        """A line of events.jsonl. Raises StorageError."""
        append_event(Storage(self.folder), kind, step, facts)

    def result(self) -> dict[str, Any] | None:
        """The content of result.json; None if it cannot be read."""
        try:
            found = json.loads((self.folder / run_folder.RESULT).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def update_result(self, ledger: Ledger, changes: Mapping[str, Any]) -> None:
        """Put the experiences and `changes` into result.json. Raises StorageError."""
        found = self.result()
        if found is None:
            return
        experiences = [
            {
                "number": experience.number,
                "state": experience.state,
                "files": len(experience.files),
                "start_step": experience.start_step,
                "end_step": experience.end_step,
                **{n: (experience.forgetting or {}).get(n) for n in ("metric", "old", "new")},
                "reason": experience.reason,
            }
            for experience in ledger.experiences
            if experience.number
        ]
        path = self.folder / run_folder.RESULT
        with storage_errors(path):
            atomic_write(
                path, encode_bytes({**found, **changes, "experiences": experiences}, indent=2)
            )

    def outcome(self) -> dict[str, Any]:
        """The last result: the fields of training.callbacks.base.Outcome."""
        found = self.result() or {}
        return {field.name: found.get(field.name) for field in fields(Outcome)}

    def started_at(self) -> float | None:
        """When the run started, in seconds since the epoch; None if it is not known."""
        try:
            with (self.folder / run_folder.EVENTS).open(encoding="utf-8") as file:
                text = json.loads(file.readline())["time"]
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except (OSError, ValueError, KeyError, TypeError):
            return None
