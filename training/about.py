"""What is trained on what: the facts of a run that people read and result.json keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class About:
    """The names and numbers of a run that do not change while it goes on."""

    model: str
    """Family and size: "language:small"."""
    mode: str
    engine: str
    device: str
    """For people: "cpu", "NVIDIA H200"."""
    precision: str
    parameters: int
    folder: Path
    data: Mapping[str, Any] = field(default_factory=dict)
    """What a task tells of its data."""
    samples: int | None = None
    """What is trained on, over all ranks: those of one epoch."""
    architecture: str | None = None
    """A digest of the names and shapes of all parameters."""
    notes: Sequence[str] = ()
    """What was filled in or adapted, a line each."""
    stage: str | None = None
    """The stage that is trained, in mode staged."""
