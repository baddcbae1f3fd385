"""Samples of what the model predicts before and after training, kept for the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.base import DataError
from training.callbacks.base import Callback
from training.logging.strict_json import encode_bytes
from training.storage import Storage

if TYPE_CHECKING:
    from models.base import Predictions
    from training.callbacks.preemption import Emit

FOLDER = "samples"
BEFORE, AFTER = "before", "after"
"""Names of the files, and facts of the event "preview"."""
SIDE = 1000
"""Pixels of the longer side of a picture at most."""
BYTES = 50_000
"""Of a picture at most, so that a report with the pictures of both times stays below 3 MB."""
_LONGEST = 4000
"""Characters of a cell."""


class SamplesWriter(Callback):
    """Writes samples/before.json and samples/after.json with small pictures beside them.

    For rank 0. Touches the disk. A failure is a warning event, since a run must not end for its
    report.
    """

    def __init__(self, storage: Storage, emit: Emit) -> None:
        self._storage, self._emit = storage, emit

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        """Replace the samples of that time."""
        try:
            (self._storage.path / FOLDER).mkdir(exist_ok=True)
            self._write(predictions, when, step)
        except (OSError, DataError) as error:  # DataError: a custom task drew no PNG
            text = f"samples for the report were not written: {error}"
            self._emit("warning", {"text": text, "subject": FOLDER})

    def _write(self, predictions: Predictions, when: str, step: int) -> None:
        from models.common.pictures import small

        pictures: list[Mapping[str, str]] = []
        for number, picture in enumerate(predictions.pictures, start=1):
            file = f"{when}-{number}.png"  # a name of a custom task may be no file name
            self._storage.atomic_write(f"{FOLDER}/{file}", small(picture.png, SIDE, BYTES))
            pictures.append({"name": picture.name, "caption": picture.caption, "file": file})
        content: dict[str, Any] = {
            "step": step,
            "columns": list(predictions.columns),
            "rows": [[_cut(cell) for cell in row] for row in predictions.rows],
            "pictures": pictures,
        }
        self._storage.atomic_write(f"{FOLDER}/{when}.json", encode_bytes(content, indent=2) + b"\n")


def _cut(cell: str | float | None) -> str | float | None:
    if isinstance(cell, str) and len(cell) > _LONGEST:
        return f"{cell[:_LONGEST]}…"
    return cell
