"""Facts of the data that setup saves in the run folder for a trained model without its data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from models.base import DataError
from models.common.split import atomic_write

FACTS_FILE = "model_facts.json"
Facts = TypeVar("Facts")


def save(facts: Any, folder: Path | None) -> None:
    """Write the dataclass `facts`, as JSON, into the run folder unless it holds the same.

    None: write nothing.
    """
    if folder is None:
        return
    path, text = folder / FACTS_FILE, json.dumps(asdict(facts), indent=1)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def load(folder: Path | None, kind: type[Facts]) -> Facts:
    """The saved facts, a dataclass `kind`. Reads the disk. Raises DataError."""
    path = folder / FACTS_FILE if folder is not None else Path(FACTS_FILE)
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        problem = f"is damaged: {f'{key}: ' if key else ''}{first['msg']}"
    raise DataError(
        f"'{path}' {problem}",
        where=str(path.parent.absolute()),
        allowed="a run folder or an export of this version, whose setup saved that file",
        fix="resume the run for a step, with its data: that writes the file",
    )
