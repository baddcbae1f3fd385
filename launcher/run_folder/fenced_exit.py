"""The end of a process whose run has been taken over by a later generation of its job."""

from __future__ import annotations

from pathlib import Path

from launcher.run_folder import claim
from slurm.environment import Generation


class FencedOff(Exception):
    """A later generation has taken the run over: this one may write nothing any more."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = claim.latest(run)
        by = (
            "another run"
            if later is None or later == generation
            else later.description_for(generation)
        )
        super().__init__(
            f"{generation.description} is fenced off by {by}, which has taken over {run}"
        )
