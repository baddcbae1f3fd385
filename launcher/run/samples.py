"""Samples of what the model predicts, kept for the report and for trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gearshift.models.base import DataError
from gearshift.training.callbacks.base import Callback
from gearshift.training.logging.strict_json import encode_bytes
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from gearshift.models.base import Predictions
    from gearshift.training.callbacks.preemption import Emit

FOLDER = "samples"
BEFORE = "before"
AFTER = "after"
"""Names of the files, and facts of the event "preview"."""
SIDE = 1000
"""Pixels of the longer side of a picture at most."""
BYTES = 50_000
"""Of a picture at most, so that a report with the pictures of both times stays small."""
_LONGEST = 4000
"""Characters of a cell."""


class SamplesWriter(Callback):
    """Writes samples/before.json and samples/after.json with small pictures beside them.

    With trackers also samples/step-N.json of evaluations. For rank 0. Touches the disk. A failure
    is a warning event, since a run must not end for its report.
    """

    def __init__(self, storage: Storage, emit: Emit) -> None:
        self._storage = storage
        self._emit = emit

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        """Replace the samples of that time."""
        self._write(predictions, when, step, is_small=True)

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Write those of an evaluation, and an event that names the file."""
        if self._write(predictions, name := f"step-{step:08}", step, is_small=False):
            self._emit("predicted", {"file": f"{name}.json"})

    def _write(self, predictions: Predictions, when: str, step: int, *, is_small: bool) -> bool:
        """Write the samples, with small pictures or whole ones; whether it succeeded."""
        drawn: list[Mapping[str, str]] = []
        storage = self._storage
        rows: list[list[str | float | None]] = []
        for row in predictions.rows:
            rows.append(
                [f"{c[:_LONGEST]}…" if isinstance(c, str) and len(c) > _LONGEST else c for c in row]
            )
        try:
            (storage.path / FOLDER).mkdir(exist_ok=True)
            for number, picture in enumerate(predictions.pictures, start=1):
                # a name of a custom task may be no file name
                png = picture.png
                file = f"{when}-{number}.png"
                if is_small:
                    from gearshift.models.common import pictures  # for tasks with pictures

                    png = pictures.small(png, SIDE, BYTES)
                storage.atomic_write(f"{FOLDER}/{file}", png)
                drawn.append({"name": picture.name, "caption": picture.caption, "file": file})
            content = {
                "step": step,
                "columns": list(predictions.columns),
                "rows": rows,
                "pictures": drawn,
            }
            storage.atomic_write(f"{FOLDER}/{when}.json", encode_bytes(content, indent=2) + b"\n")
        except (OSError, DataError) as error:  # DataError: a custom task drew no PNG
            text = f"samples were not written: {error}"
            self._emit("warning", {"text": text, "subject": FOLDER})
            return False
        return True
