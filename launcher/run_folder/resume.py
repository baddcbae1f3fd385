"""What a start does, as data: which run it resumes, or that nothing is left to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.config.provenance import ResetPart, Resolved

if TYPE_CHECKING:
    from launcher.run_folder.checkpoint_search import ResumableRun


@dataclass(frozen=True)
class ResumeRequest:
    """What to resume from, for the ranks."""

    source: Path
    """The run folder with the checkpoints; the folder written to unless the run is a fork."""
    step: int | None = None
    """Only the checkpoint of this step; None: the newest intact one, or none."""
    reset: Sequence[ResetPart] = ()
    """State to reinitialize instead of restoring it."""
    changes: Sequence[str] = ()
    """Settings that differ from those of the checkpoint, one line each."""
    until: int | None = None
    """The last step of a replay; None: no replay."""

    def rewinds(self, folder: Path) -> bool:
        """Whether the run in `folder` may repeat steps with a different result."""
        requested_step = self.step is not None or bool(self.reset)
        return requested_step and self.source.resolve() == folder.resolve()

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON."""
        return {**asdict(self), "source": str(self.source)}


@dataclass(frozen=True)
class NothingLeft:
    """A run that was completed before."""

    line: str
    """The message for the user."""
    outcome: Mapping[str, Any]
    """The fields of training.callbacks.base.Outcome except the exit code."""


@dataclass(frozen=True)
class Decision:
    """Settings and resumed run of a start; nothing has been written."""

    resolved: Resolved
    resume: ResumeRequest | None = None
    """What the ranks resume from."""
    found: ResumableRun | None = None
    """The run to resume; None: a new run."""
    line: str | None = None
    """The message about the resumed run; None: without --resume."""
    nothing_left: NothingLeft | None = None
    """The run was completed before, and its new settings do not extend it."""
