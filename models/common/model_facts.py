"""Facts of the data that setup saves in the run folder for a trained model without its data."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from models.base import DataError
from models.common.split import atomic_write

FACTS_FILE = "model_facts.json"


def save(facts: Mapping[str, Any], folder: Path | None) -> None:
    """Write `facts`, as JSON, into the run folder unless it holds the same; None: write nothing."""
    if folder is None:
        return
    path, text = folder / FACTS_FILE, json.dumps(facts, indent=1)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic_write(path, text)


def load(folder: Path | None, names: Collection[str]) -> dict[str, Any]:
    """The saved facts, which include all of `names`. Reads the disk. Raises DataError."""
    path = folder / FACTS_FILE if folder is not None else Path(FACTS_FILE)
    try:
        facts = json.loads(path.read_bytes())
        missing = [name for name in names if name not in facts]
    except (OSError, ValueError, TypeError) as error:
        problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        if not missing:
            return dict(facts)
        problem = f"lacks {', '.join(missing)}"
    raise DataError(
        f"'{path}' {problem}",
        where=str(path.parent.absolute()),
        allowed="a run folder or an export of this version, whose setup saved that file",
        fix="resume the run for a step, with its data: that writes the file",
    )
