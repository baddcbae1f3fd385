"""A run that is stopped under one engine and resumed under another."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from gearshift.engines.base import Engine, Precision
from gearshift.training.checkpoint.reader import open_checkpoint
from gearshift.training.checkpoint.restore import restore
from gearshift.training.checkpoint.retention import Keep
from gearshift.training.checkpoint.writer import CheckpointWriter
from gearshift.training.optim.updater import set_lr
from gearshift.training.storage import Storage
from tests.engines.parity import Case, Outcome, StepResult, joined, one_step, outcome, prepared
from tests.engines.pool import Pool

SAVED_AT, STEPS = 6, 9
OVERFLOW_AT = 4
"""In fp16: at the save the loss scale and its count have changed."""

Damage = Callable[[Engine], None]


@dataclass(frozen=True)
class Source:
    """A run that saved a checkpoint and continued to its end; an outcome of each rank."""

    folder: Path
    saved: list[Outcome]
    end: list[Outcome]


@dataclass(frozen=True)
class Crossed:
    """A run resumed from a checkpoint; an outcome of each rank."""

    taken: list[Outcome]
    """The restored state, before its first step."""
    end: list[Outcome]


@dataclass
class Crossings:
    """Runs under all engines, each trained once; `pools` by world size."""

    pools: dict[int, Pool]
    folder: Path
    _sources: dict[tuple[str, int, Precision, bool], Source] = field(default_factory=dict)

    def source(self, engine, size, precision="fp32", factors=False):
        key = (engine, size, precision, factors)
        if key not in self._sources:
            run = self.folder / "-".join(map(str, key))
            run.mkdir()
            results = self.pools[size].run(begin, engine, precision, run, factors)
            folders, saved, end = (list(column) for column in zip(*results, strict=True))
            self._sources[key] = Source(folders[0], saved, end)
        return self._sources[key]

    def cross(self, source, engine, size, precision="fp32", damage=None, factors=False):
        """Resume the checkpoint of `source` under `engine`, after `damage` if given."""
        work = (engine, precision, source.folder, damage, factors)
        results = self.pools[size].run(resume_run, *work)
        return Crossed(*(list(column) for column in zip(*results, strict=True)))


Train = Callable[[int, int], list[StepResult]]
"""Takes the steps from one to another, both included."""


def begin(world, name, precision, run, factors):
    """Train, save and continue: the checkpoint, the state in it, and the end."""
    case = _case(name, precision, factors)
    with prepared(world, case) as (engine, module):
        train = partial(_train, world, engine, module, case)
        return saved_halfway(world, name, engine, run, train, SAVED_AT, STEPS)


def saved_halfway(world, name, engine, run, train, at, steps):
    """Train to step `at`, save and train to the end: the checkpoint, the state in it, the end."""
    taken = train(1, at)
    saver = CheckpointWriter(
        Storage(run), world, name, Keep(last=1, best=1, every=None), in_background=False
    )
    saver.save(at, engine.state(), {"samples": 0}, periodic=True, score=None)
    folder = saver.wait()
    saved = outcome(engine, taken)
    return folder, saved, outcome(engine, train(at + 1, steps))


def resume_run(world, name, precision, folder, damage, factors):
    """Restore a checkpoint into a model with other weights: the state then, and at the end."""
    case = _case(name, precision, factors)
    with prepared(world, case, seed=1) as (engine, module):
        restore(open_checkpoint(folder), engine)
        if damage:
            damage(engine)
        taken = outcome(engine, [])
        end = _train(world, engine, module, case, SAVED_AT + 1, STEPS)
        return taken, outcome(engine, end)


def differences(saved, taken):
    """Bitwise differences of the state `taken` from the state `saved`; outcomes of each rank."""
    found = _unequal(joined(saved), joined(taken))
    for rank in taken:
        found += [f"buffer {name}" for name in _unequal(saved[0].buffers, rank.buffers)]
        found += ["groups"] * (rank.groups != saved[0].groups)
        found += ["loss scale"] * (rank.loss_scale != saved[0].loss_scale)
        found += ["shapes"] * (rank.shapes != saved[0].shapes)
    found += ["steps"] * (_steps(saved) != _steps(taken))
    return [str(value) for value in dict.fromkeys(found)]


def drift(end, reference):
    """The largest relative difference of the losses."""
    pairs = zip(end[0].losses, reference[0].losses, strict=True)
    return max(abs(value - other) / abs(other) for value, other in pairs)


def _case(name, precision, factors):
    overflow_at = OVERFLOW_AT if precision == "fp16" else None
    return Case(name, precision=precision, overflow_at=overflow_at, factors=factors)


def _train(world, engine, module, case, first, last):
    """Steps `first` to `last`; saved in the middle of the cosine of their learning rates."""
    taken = []
    for step in range(first, last + 1):
        set_lr(engine.groups, case.lr * (0.55 + 0.45 * math.cos(math.pi * step / STEPS)))
        taken.append(one_step(world, engine, module, case, step))
    return taken


def _steps(outcomes):
    steps = {}
    for rank in outcomes:
        for name, count in rank.steps.items():
            assert steps.setdefault(name, count) == count
    return steps


def _unequal(these, those):
    return [
        key
        for key in {**these, **those}
        if key not in these
        or key not in those
        or these[key].dtype != those[key].dtype
        or not np.array_equal(these[key], those[key])
    ]
