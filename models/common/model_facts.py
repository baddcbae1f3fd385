"""Facts of the data that setup saves in the run folder for a trained model without its data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from gearshift.models.common.data_files import library_errors
from gearshift.models.common.split import write_if_changed

FACTS_FILE = "model_facts.json"
Facts = TypeVar("Facts")


def save(facts: Any, folder: Path | None, name: str = FACTS_FILE) -> None:
    """Write the dataclass `facts`, as JSON, into the run folder unless it holds the same.

    None: write nothing.
    """
    if folder is not None:
        write_if_changed(folder / name, json.dumps(asdict(facts), indent=1))


def load(folder: Path | None, kind: type[Facts], name: str = FACTS_FILE) -> Facts:
    """The saved facts, a dataclass `kind`. Reads the disk. Raises DataError."""
    path = Path(name) if folder is None else folder / name
    with library_errors(
        f"'{path}' cannot be read",
        str(path.parent.absolute()),
        allowed="a run folder or an export of this version, whose setup saved that file",
        fix="resume the run for a step, with its data: that writes the file",
    ):
        return TypeAdapter(kind).validate_json(path.read_bytes())
