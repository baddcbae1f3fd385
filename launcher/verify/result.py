"""What a replay proves: whether the same steps came to the same state, and to the same lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.base.diagnostics import counted
from launcher.run_folder import run_folder
from training.checkpoint import manifest, retention

if TYPE_CHECKING:
    from launcher.config.provenance import Resolved
    from launcher.verify.interval import Stretch
    from training.checkpoint import compare
    from training.checkpoint.compare import Tolerance
    from training.checkpoint.manifest import Manifest
    from training.checkpoint.reader import Checkpoint
    from training.logging import line_comparison

_TOLERANCES = {"fp32": (1e-4, 1e-2)}
_OF_SHORTER_NUMBERS = (2e-2, 0.5)
"""Of weights and of moments; measured: docs/verify.md."""


@dataclass(frozen=True)
class Conditions:
    """How the steps were taken again."""

    stretch: Stretch
    engine: str
    world_size: int
    precision: str

    def tolerance(self, written: Manifest) -> Tolerance | None:
        """How far two states may be apart; None: not at all, as what took the steps was the same.

        Another engine, or another number of processes, adds up the same numbers in another order.
        """
        from training.checkpoint.compare import Tolerance

        if (self.engine, self.world_size) == (written.engine, written.world_size):
            return None
        return Tolerance(*_TOLERANCES.get(self.precision, _OF_SHORTER_NUMBERS))


@dataclass(frozen=True)
class Proof:
    """A stretch of a run beside its replay."""

    conditions: Conditions
    tolerance: Tolerance | None
    is_identical: bool
    """No bit differs."""
    state: compare.Comparison
    lines: line_comparison.Comparison
    notes: Sequence[str]
    """What to know when judging a difference."""

    @property
    def agrees(self) -> bool:
        """Nothing differs by more than the tolerance; without one, nothing at all."""
        return self.state.first is None and self.lines.first is None

    @property
    def steps(self) -> int:
        """How many were taken again."""
        return self.conditions.stretch.upto - self.conditions.stretch.after


def prove(
    conditions: Conditions, run: Path | None, last: Checkpoint, replay: Path, notes: Sequence[str]
) -> Proof:
    """Compare what a replay left in the folder `replay` with the `last` checkpoint of `run`.

    Reads the disk. Raises CheckpointError where the replay left no such checkpoint.
    """
    from training.checkpoint import compare, reader
    from training.logging import line_comparison

    stretch = conditions.stretch
    name = manifest.step_folder(stretch.upto)
    again = reader.open_checkpoint(replay / retention.CHECKPOINTS / name, verify=False)
    tolerance = conditions.tolerance(last.manifest)

    def compared(
        within: Tolerance | None,
    ) -> tuple[compare.Comparison, line_comparison.Comparison]:
        ours, theirs = (f / run_folder.METRICS if f else Path() for f in (run, replay))
        return (
            compare.compare(last, again, within),
            line_comparison.compare(ours, theirs, stretch.after, stretch.upto, within),
        )

    state, lines = compared(None)
    is_identical = state.first is None and lines.first is None
    if tolerance is not None and not is_identical:
        state, lines = compared(tolerance)
    told = [*notes, *_libraries(last.manifest, again.manifest)]
    return Proof(conditions, tolerance, is_identical, state, lines, told)


def _libraries(written: Manifest, again: Manifest) -> Iterator[str]:
    """Other versions of what computes, which may round differently."""
    for name in ("torch", "deepspeed", "fairscale"):
        before, now = written.libraries.get(name), again.libraries.get(name)
        if before and now and before != now:
            yield f"the checkpoint was written with {name} {before}, the replay with {now}"


def text(proof: Proof) -> str:
    """What a person is told of it."""
    return "".join(f"{line}\n" for line in _lines(proof))


def _lines(proof: Proof) -> Iterator[str]:
    count = f"{proof.state.tensors} tensors, {counted(proof.steps, 'step')}"
    first = proof.state.first or proof.lines.first
    if proof.is_identical:
        yield f"identical: {count}"
    elif first is None:
        yield f"equal {_within(proof.tolerance)}: {count}"
    else:
        yield f"different: {_told(first)}"
    if proof.state.differing:
        yield (
            f"  state    {proof.state.differing} of {proof.state.tensors} tensors differ, most "
            f"{proof.state.largest_in}: by {proof.state.largest:.2g} of its norm"
        )
    if proof.lines.first not in (None, first):
        yield f"  line     {_told(proof.lines.first)}"
    yield f"  replay   {_replay(proof)}"
    for note in proof.notes:
        yield f"  note     {note}"


def announced(conditions: Conditions) -> str:
    """What is said while a person waits."""
    return f"replaying {_how(conditions)}; the run folder is only read"


def chance(resolved: Resolved) -> Iterator[str]:
    """What may make equal steps differ, by the settings that they are taken with."""
    if resolved.device != "cpu" and not resolved.settings.train.deterministic:
        yield f"without train.deterministic, {resolved.device} adds up in any order"


def _replay(proof: Proof) -> str:
    lines = counted(proof.lines.lines, "logged line")
    return f"{_how(proof.conditions)}, {_within(proof.tolerance)}; {lines}"


def _how(conditions: Conditions) -> str:
    stretch = conditions.stretch
    processes = counted(conditions.world_size, "process")
    return f"steps {stretch.after} to {stretch.upto}, {conditions.engine} on {processes}"


def _within(tolerance: Tolerance | None) -> str:
    if tolerance is None:
        return "bit by bit"
    return f"within {tolerance.weights:g} (moments {tolerance.moments:g})"


def _told(difference: compare.Difference) -> str:
    return (
        f"{difference.place} is {difference.first} in the run and {difference.second} in the replay"
    )


def as_json(proof: Proof) -> dict[str, Any]:
    """The same for machines."""
    conditions, state = proof.conditions, proof.state
    largest = {"of": state.largest_in, "relative": state.largest} if state.differing else None
    return {
        "identical": proof.is_identical,
        "agrees": proof.agrees,
        "tolerance": proof.tolerance and asdict(proof.tolerance),
        "steps": proof.steps,
        "tensors": state.tensors,
        "first_difference": _difference(state.first or proof.lines.first),
        "from_step": conditions.stretch.after,
        "to_step": conditions.stretch.upto,
        "engine": conditions.engine,
        "world_size": conditions.world_size,
        "lines": proof.lines.lines,
        "differing_tensors": state.differing,
        "largest_difference": largest,
        "notes": list(proof.notes),
        "error": None,
    }


def _difference(found: compare.Difference | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "kind": found.kind,
        "name": found.name,
        "index": found.index,
        "step": found.step,
        "run": found.first,
        "replay": found.second,
    }


def failure(why: str) -> dict[str, Any]:
    """What machines are told where nothing could be compared."""
    return {
        "identical": False,
        "agrees": False,
        "tolerance": None,
        "steps": 0,
        "tensors": 0,
        "first_difference": None,
        "error": why,
    }
