"""What a run goes on from: whose checkpoints, which of them, and what begins anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Part = Literal["optimizer", "schedule", "data"]


@dataclass(frozen=True)
class Resume:
    """What the ranks of a run that goes on are told."""

    source: Path
    """The run folder whose checkpoints are looked through; mostly the one that is written to."""
    step: int | None = None
    """The checkpoint of this step and no other; None: the newest whole one, or none at all."""
    reset: Sequence[Part] = ()
    """What begins anew in spite of the checkpoint."""
    changes: Sequence[str] = ()
    """What differs from the settings that the checkpoint was made with, a line each."""
    until: int | None = None
    """Go no further than this step: the end of a replay."""

    def goes_back(self, folder: Path) -> bool:
        """Whether a person may let the run in `folder` take steps again in another way."""
        asked = self.step is not None or bool(self.reset)
        return asked and self.source.resolve() == folder.resolve()


def plain(resume: Resume) -> dict[str, Any]:
    """It as JSON has it."""
    return {**asdict(resume), "source": str(resume.source)}
