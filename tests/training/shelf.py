"""Checkpoints in memory instead of a run folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from gearshift.training.checkpoint.manifest import step_folder
from gearshift.training.checkpoint.resume_point import ResumePoint
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.logging.encoding import encode


@dataclass
class Shelf:
    """Keeps saved state in memory instead of a run folder."""

    saved: dict[int, dict[str, Any]] = field(default_factory=dict)
    is_settled: bool = False
    keep: Keep = field(default_factory=lambda: Keep(1, 1, None))

    def save(self, step, state, facts, periodic, score):
        assert not self.is_settled, "the run has not taken note of the save before"
        self.saved[step] = {
            "facts": json.loads(encode(facts)),
            "score": score,
            "periodic": periodic,
            "pieces": {(p.kind, p.name): p.data.clone() for p in state.pieces},
            "steps": dict(state.steps),
            "loss_scale": dict(state.loss_scale),
        }
        self.is_settled = True

    def wait(self):
        if not self.is_settled:
            return None
        self.is_settled = False
        return Path(step_folder(max(self.saved)))

    def abandon(self):
        self.is_settled = False

    def before(self, step, **changes):
        """The resume point of `step`."""
        kept = self.saved[step]
        names = ("facts", "pieces", "steps", "loss_scale")
        return ResumePoint(KeptCheckpoint(step, *(kept[name] for name in names)), **changes)


@dataclass
class KeptCheckpoint:
    """The part of a checkpoint that a run reads."""

    step: int
    facts: Mapping[str, Any]
    pieces: Mapping[Any, Tensor]
    steps: Mapping[str, float]
    loss_scale: Mapping[str, float]
    folder = Path("checkpoints/kept")

    @property
    def manifest(self):
        samples = self.facts["samples"]
        return SimpleNamespace(step=self.step, samples=samples, engine="local", world_size=1)

    @property
    def kinds(self):
        return sorted({kind for kind, _ in self.pieces})

    def fill(self, pieces):
        for piece in pieces:
            stop = piece.start + piece.data.numel()
            piece.data.detach().copy_(self.pieces[piece.kind, piece.name][piece.start : stop])
