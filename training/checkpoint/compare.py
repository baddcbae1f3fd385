"""Compares two checkpoints tensor by tensor, and the metrics of two runs step by step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from training.checkpoint.reader import Checkpoint
from training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2**21
"""Elements of a tensor that are compared together: 16 MiB as float64."""
_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable"})
"""Options of torch optimizers that change how a step is computed, but not its result."""
_TRAIN = ("loss", "grad_norm", "lr", "samples", "tokens", "epoch", "parts", "loss_scale")
"""Numbers that do not depend on machine and time."""
_TRAINING, _EVAL = "0", "1"
"""Keys that sort the lines of a step."""
_REPRODUCED = ("loss", "grad_norm", "lr", "samples", "tokens")
"""Numbers that other engines reproduce to rounding; loss scale and parts may differ."""

Line = Mapping[str, Any]
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Tolerance:
    """Allowed relative differences of two runs of the same training."""

    weights: float
    """For weights, their average, buffers and the loss."""
    moments: float
    """For optimizer slots and the gradient norm: they follow the last gradients, which differ a
    hundred times as much as the weights that they sum up to."""

    def of(self, kind: str) -> float:
        """The tolerance of a kind of tensor."""
        return self.weights if kind in (WEIGHT, EMA, BUFFER) else self.moments


@dataclass(frozen=True)
class Difference:
    """One difference between two states, or between two logs of the same steps."""

    kind: str
    """"weight", "buffer" or the name of an optimizer slot; "shape", "steps", "groups",
    "loss_scale", "samples"; "train" or "eval" for a logged line."""
    name: str
    """The parameter, or the key of a line."""
    index: tuple[int, ...] | None
    """The element; None: not an element of a tensor."""
    first: Any
    second: Any
    step: int | None = None
    """Of a logged line."""

    @property
    def place(self) -> str:
        """Readable location: `weight of model.norm.weight[3]`, `loss of step 7`."""
        if self.step is not None:
            return f"{self.name} of step {self.step}"
        index = "" if self.index is None else str(list(self.index))
        return f"{self.kind} of {self.name}{index}" if self.name else self.kind


@dataclass(frozen=True)
class TensorComparison:
    """The result of comparing two checkpoints."""

    tensors: int
    """Weights, slots and buffers compared."""
    differing: int
    """Those that differ by at least one bit."""
    first: Difference | None
    """The first difference above the tolerance; None: there is none."""
    largest: float
    """The largest difference of a tensor: the norm of the difference over the larger norm of the
    two; 0: no bit differs."""
    largest_in: str | None
    """Its tensor: `weight of model.norm.weight`."""


@dataclass(frozen=True)
class MetricsComparison:
    """The result of comparing the lines of two runs."""

    lines: int
    """Lines that both runs have, and that were compared."""
    first: Difference | None
    is_missing: bool = False
    """None of the lines that the other run logged is among those of the first run; the line of
    the other run's first step does not count."""


def compare(
    ours: Checkpoint, theirs: Checkpoint, tolerance: Tolerance | None = None
) -> TensorComparison:
    """Compare everything that resuming restores, weights first. Touches disk, in bounded memory.

    Without `tolerance`, bit by bit: equal NaNs are equal and -0 is not 0. With one, a tensor may
    differ by it relative to its norm, and a number of the parameter groups relative to itself. The
    norm, not single elements: for a nearly zero gradient, AdamW turns rounding into a whole step.
    What depends on the engine is then not compared: the loss scale, options that only one side has,
    and the implementation of the optimizer. Integers and steps must be equal.
    """
    shapes = dict(_shape_differences(ours, theirs))
    differences = list(shapes.values())
    differing, largest, largest_in = 0, 0.0, None
    tensors = [t for t in _tensors(ours, theirs) if t not in shapes]
    for kind, name in tensors:
        first_bit = _first_bit(ours, theirs, kind, name)
        if first_bit is None:
            continue
        differing += 1
        measured = _measure(ours, theirs, kind, name)
        if largest_in is None or not measured.relative <= largest:
            largest, largest_in = measured.relative, f"{kind} of {name}"
        if tolerance is None:
            differences.append(_difference(ours, theirs, kind, name, first_bit))
        elif not measured.relative <= tolerance.of(kind):
            differences.append(_difference(ours, theirs, kind, name, measured.farthest))
    differences += _beside_tensors(ours, theirs, tolerance)
    first = differences[0] if differences else None
    return TensorComparison(len(tensors), differing, first, largest, largest_in)


def number_differs(ours: Any, theirs: Any, tolerance: float | None) -> bool:
    """Whether two values from JSON differ, floats by more than `tolerance`."""
    if tolerance is None or not (isinstance(ours, float) and isinstance(theirs, float)):
        return bool(ours != theirs)
    return abs(ours - theirs) > tolerance * max(abs(ours), abs(theirs))


@dataclass(frozen=True)
class _Measured:
    relative: float
    """The norm of the difference over the larger norm; infinite where one is not finite."""
    farthest: int
    """The flat index of the largest difference."""


def _tensors(ours: Checkpoint, theirs: Checkpoint) -> list[tuple[str, str]]:
    """Kind and name of all tensors of either, weights first, in the order of the model."""
    kinds = sorted({*ours.kinds, *theirs.kinds}, key=lambda kind: (kind != WEIGHT, kind))
    names = {**ours.shapes, **theirs.shapes}
    tensors = []
    for kind in kinds:
        there = {*ours.names(kind), *theirs.names(kind)}
        tensors += [(kind, name) for name in names if name in there]
    buffers = {**ours.buffer_shapes, **theirs.buffer_shapes}
    return [*tensors, *((BUFFER, name) for name in buffers)]


def _shape_differences(
    first: Checkpoint, second: Checkpoint
) -> Iterator[tuple[tuple[str, str], Difference]]:
    """Tensors that only one has, or with another shape or dtype."""
    forms = [_forms(checkpoint) for checkpoint in (first, second)]
    for kind, name in _tensors(first, second):
        ours, theirs = (form.get((kind, name)) for form in forms)
        if ours != theirs:
            yield (kind, name), Difference("shape", f"{kind} {name}", None, ours, theirs)


def _forms(checkpoint: Checkpoint) -> dict[tuple[str, str], str]:
    forms = {}
    for kind in (*checkpoint.kinds, BUFFER):
        for name in checkpoint.names(kind):
            dtype = str(checkpoint.dtype(kind, name)).removeprefix("torch.")
            forms[kind, name] = f"{list(checkpoint.shape(kind, name))} {dtype}"
    return forms


def _chunks(
    first: Checkpoint, second: Checkpoint, kind: str, name: str
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Both tensors flat, in chunks: index of the first element, values, mask of different bits."""
    count = prod(first.shape(kind, name))
    for start in range(0, count, _CHUNK):
        stop = min(count, start + _CHUNK)
        ours, theirs = (c.interval(kind, name, start, stop) for c in (first, second))
        bits = _BITS[ours.dtype.itemsize]
        yield start, ours, theirs, ours.view(bits) != theirs.view(bits)


def _first_bit(first: Checkpoint, second: Checkpoint, kind: str, name: str) -> int | None:
    for start, _, _, differs in _chunks(first, second, kind, name):
        if differs.any():
            return start + int(differs.int().argmax())
    return None


def _measure(first: Checkpoint, second: Checkpoint, kind: str, name: str) -> _Measured:
    """The distance of two tensors; infinite for different integers."""
    squares = torch.zeros(3, dtype=torch.float64)
    largest, farthest = -1.0, 0
    for start, ours, theirs, differs in _chunks(first, second, kind, name):
        a, b = ours.double(), theirs.double()
        # The same NaN or infinity on both sides has distance 0.
        apart = (a - b).abs().masked_fill(~differs, 0.0).nan_to_num(nan=math.inf)
        if not ours.is_floating_point():
            apart = apart.masked_fill(differs, math.inf)
        squares += torch.stack([apart.square().sum(), *(_finite_square(x) for x in (a, b))])
        if (value := float(apart.max())) > largest:
            largest, farthest = value, start + int(apart.argmax())
    norm, *norms = squares.sqrt().tolist()
    return _Measured(norm / max(norms) if max(norms) else norm, farthest)


def _finite_square(x: Tensor) -> Tensor:
    return x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).square().sum()


def _difference(
    first: Checkpoint, second: Checkpoint, kind: str, name: str, position: int
) -> Difference:
    ours, theirs = (c.interval(kind, name, position, position + 1).item() for c in (first, second))
    return Difference(kind, name, _unravelled(position, first.shape(kind, name)), ours, theirs)


def _unravelled(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for axis in reversed(shape):
        position, rest = divmod(position, axis)
        index.insert(0, rest)
    return tuple(index)


def _beside_tensors(
    first: Checkpoint, second: Checkpoint, tolerance: Tolerance | None
) -> Iterator[Difference]:
    if first.manifest.samples != second.manifest.samples:
        yield Difference("samples", "", None, first.manifest.samples, second.manifest.samples)
    for name, ours, theirs in _both(first.steps, second.steps):
        if ours != theirs:
            yield Difference("steps", name, None, ours, theirs)
    if len(first.groups) != len(second.groups):
        yield Difference("groups", "", None, len(first.groups), len(second.groups))
    for number, groups in enumerate(zip(first.groups, second.groups, strict=False)):
        for key, ours, theirs in _both(*groups):
            is_own = key in _IMPLEMENTATION or key not in groups[0] or key not in groups[1]
            if is_own and tolerance is not None:
                continue
            if number_differs(ours, theirs, tolerance.weights if tolerance else None):
                yield Difference("groups", f"{number}.{key}", None, ours, theirs)
    if tolerance is None:
        for name, ours, theirs in _both(first.loss_scale, second.loss_scale):
            if ours != theirs:
                yield Difference("loss_scale", name, None, ours, theirs)


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Each key of either, with both values; None if one lacks it."""
    for key in {**first, **second}:
        yield key, first.get(key), second.get(key)


def compare_metrics(
    first: Path, second: Path, after: int, upto: int, tolerance: Tolerance | None = None
) -> MetricsComparison:
    """Compare the common lines of two metrics.jsonl in the steps (`after`, `upto`]. Reads the disk.

    Without `tolerance` all numbers except times, memory and throughput are compared bit by bit.
    With one, numbers of training lines may differ by it, relatively, and evaluations are left out:
    a last bit may change a count of right answers. A run also logs the first step after a start, so
    each run may have lines that the other lacks. A missing file counts as 0 lines.
    """
    ours, theirs = (_lines(path, after, upto, tolerance is None) for path in (first, second))
    both = [key for key in sorted(ours) if key in theirs]
    for key in both:
        for difference in _differences(ours[key], theirs[key], tolerance):
            return MetricsComparison(len(both), difference)
    logged = [key for key in theirs if key[0] > after + 1 or key[1] == _EVAL]
    return MetricsComparison(len(both), None, is_missing=bool(logged) and not both)


def _lines(
    path: Path, after: int, upto: int, with_evaluations: bool
) -> dict[tuple[int, str, str], Line]:
    """The lines of those steps; the later of two lines of one step: the run had gone back."""
    kinds = ("train", "eval") if with_evaluations else ("train",)
    lines: dict[tuple[int, str, str], Line] = {}
    for line in _read(path):
        step, kind = line.get("step"), line.get("kind")
        if kind in kinds and isinstance(step, int) and after < step <= upto:
            # At one step, training comes before evaluation.
            lines[step, _EVAL if kind == "eval" else _TRAINING, str(line.get("split", ""))] = line
    return lines


def _read(path: Path) -> Iterator[Line]:
    """Each complete line: a killed process may have left half of the last one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    for line in text.split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _differences(first: Line, second: Line, tolerance: Tolerance | None) -> Iterator[Difference]:
    kind, step = str(first["kind"]), int(first["step"])
    for key, ours, theirs in _numbers(first, second, _TRAIN if tolerance is None else _REPRODUCED):
        within = None
        if tolerance is not None:
            within = tolerance.moments if key == "grad_norm" else tolerance.weights
        if number_differs(ours, theirs, within):
            yield Difference(kind, key, None, ours, theirs, step)


def _numbers(first: Line, second: Line, keys: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    if first["kind"] == "eval":
        keys = ("metrics",)
    for key in keys:
        ours, theirs = first.get(key), second.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            for name in {**ours, **theirs}:
                yield f"{key}.{name}", ours.get(name), theirs.get(name)
        else:
            yield key, ours, theirs
