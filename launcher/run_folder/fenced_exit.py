"""The end of a process whose run has been taken over by a later generation of its job."""

from __future__ import annotations

from pathlib import Path

from launcher.run_folder import claim
from slurm.generation import Generation


class FencedOff(Exception):
    """A later generation has taken the run over: this one may write nothing any more."""

    def __init__(self, run: Path, generation: Generation) -> None:
        later = claim.latest(run)
        by = "another run" if later is None or later == generation else later.told_to(generation)
        super().__init__(
            f"{generation.described} is fenced off by {by}, which has taken over {run}"
        )
