"""Lines after the step of a resume, which leave metrics.jsonl and events.jsonl."""

from __future__ import annotations

import json
import os
from contextlib import suppress

from gearshift.training.callbacks.base import TEST
from gearshift.training.logging.metrics import NAME
from gearshift.training.storage import Storage, storage_errors


def truncate(
    storage: Storage,
    step: int,
    evaluated_at: int | None,
    *,
    is_end: bool = False,
) -> None:
    """Remove the lines that a run resumed from `step` will write again. Touches disk.

    These are the lines of later steps, an evaluation after `step` that its checkpoint does not know
    (`evaluated_at` is the last one it knows), that of the test split if `step` `is_end`, and an
    incomplete line. Raises StorageError.
    """
    path = storage.path / NAME
    with storage_errors(path), suppress(FileNotFoundError):
        end = 0
        for line in path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            written = json.loads(line)
            at = written.get("step", step - 1)  # else of another program
            stays = at <= step
            if at == step and written["kind"] == "eval":
                stays = evaluated_at == step and not (is_end and written.get("split") == TEST)
            if not stays:
                break  # steps only grow from line to line
            end += len(line)
        os.truncate(path, end)  # in place: another process may be following it
