"""Compares two checkpoints tensor by tensor, and the metrics of two runs step by step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from training.callbacks.base import Facts
from training.checkpoint.reader import Checkpoint
from training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT

_CHUNK = 2**21  # Elements of a tensor that are compared together: 16 MiB as float64
# Options of torch optimizers that change how a step is computed, but not its result.
_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable"})
# Numbers that do not depend on machine and time.
_TRAIN = ("loss", "grad_norm", "lr", "samples", "tokens", "epoch", "parts", "loss_scale")
# Numbers that other engines reproduce to rounding; loss scale and parts may differ.
_REPRODUCED = ("loss", "grad_norm", "lr", "samples", "tokens")

Line = Facts
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
    lines: int
    """Lines that both runs have, and that were compared."""
    first: Difference | None
    is_missing: bool = False
    """None of the lines that the other run logged is among those of the first run; the line of
    the other run's first step does not count."""


def compare(ours: Checkpoint, theirs: Checkpoint, tolerance: Tolerance | None = None) -> TensorComparison:
    """Compare everything that resuming restores, weights first. Touches disk, in bounded memory.

    Without `tolerance`, bit by bit: equal NaNs are equal and -0 is not 0. With one, a tensor may
    differ by it relative to its norm, and a number of the parameter groups relative to itself. The
    norm, not single elements: for a nearly zero gradient, AdamW turns rounding into a whole step.
    What depends on the engine is then not compared: the loss scale, options that only one side has,
    and the implementation of the optimizer. Integers and steps must be equal.
    """
    forms, shapes, values = [_forms(ours), _forms(theirs)], [], []
    count, differing, largest, largest_in = 0, 0, 0.0, None
    for key in sorted({**forms[0], **forms[1]}, key=lambda t: (t[0] == BUFFER, t[0] != WEIGHT, t[0])):
        kind, name = key
        first_form, second_form = (form.get(key) for form in forms)
        if first_form != second_form:
            shapes.append(Difference("shape", f"{kind} {name}", None, first_form, second_form))
            continue
        count += 1
        relative, at = _distance(ours, theirs, kind, name, tolerance is None)
        if at is None:
            continue
        differing += 1
        if largest_in is None or not relative <= largest:
            largest, largest_in = relative, f"{kind} of {name}"
        if tolerance is None or not relative <= tolerance.of(kind):
            index = tuple(int(i) for i in np.unravel_index(at, ours.shape(*key)))
            a, b = (c.interval(*key, at, at + 1).item() for c in (ours, theirs))
            values.append(Difference(kind, name, index, a, b))
    first = next(iter([*shapes, *values, *_beside_tensors(ours, theirs, tolerance)]), None)
    return TensorComparison(count, differing, first, largest, largest_in)


def _forms(checkpoint: Checkpoint) -> dict[tuple[str, str], str]:
    """Shape and dtype by kind and name, in the order of the model."""
    names = {kind: checkpoint.shapes for kind in checkpoint.kinds} | {BUFFER: checkpoint.buffer_shapes}
    keys = ((kind, name) for kind in names for name in names[kind] if name in {*checkpoint.names(kind)})
    return {
        key: f"{list(checkpoint.shape(*key))} {str(checkpoint.dtype(*key)).removeprefix('torch.')}"
        for key in keys
    }


def _distance(
    first: Checkpoint, second: Checkpoint, kind: str, name: str, wants_first_bit: bool
) -> tuple[float, int | None]:
    """The norm of the difference over the larger norm, and a flat index; None: no bit differs.

    Infinite where one is not finite, and for different integers. The index is that of the first bit
    that differs, or of the largest difference. In chunks.
    """
    squares = torch.zeros(3, dtype=torch.float64)
    at, largest, count = None, -1.0, prod(first.shape(kind, name))
    for start in range(0, count, _CHUNK):
        ours, theirs = (c.interval(kind, name, start, min(count, start + _CHUNK)) for c in (first, second))
        bits = _BITS[ours.dtype.itemsize]
        differs = ours.view(bits) != theirs.view(bits)
        a, b = ours.double(), theirs.double()
        # The same NaN or infinity on both sides has distance 0.
        apart = (a - b).abs().masked_fill(~differs, 0.0).nan_to_num(nan=math.inf)
        if not ours.is_floating_point():
            apart = apart.masked_fill(differs, math.inf)
        finite = (x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for x in (a, b))
        squares += torch.stack([x.square().sum() for x in (apart, *finite)])
        if differs.any() and (at is None or (not wants_first_bit and float(apart.max()) > largest)):
            at = start + int((differs.int() if wants_first_bit else apart).argmax())
            largest = float(apart.max())
    norm, *norms = squares.sqrt().tolist()
    return norm / (max(norms) or 1.0), at


def _beside_tensors(
    first: Checkpoint, second: Checkpoint, tolerance: Tolerance | None
) -> Iterator[Difference]:
    """Numbers of state.json and the manifest that differ."""

    def numbers(checkpoint: Checkpoint) -> dict[tuple[str, str], Any]:
        groups = {("groups", f"{n}.{k}"): v for n, g in enumerate(checkpoint.groups) for k, v in g.items()}
        values = {("samples", ""): checkpoint.manifest.samples, ("groups", ""): len(checkpoint.groups)}
        steps = {("steps", name): count for name, count in checkpoint.steps.items()}
        return values | steps | groups | {("loss_scale", n): v for n, v in checkpoint.loss_scale.items()}

    ours, theirs = numbers(first), numbers(second)
    for key in {**ours, **theirs}:
        (kind, name), pair, within = key, (ours.get(key), theirs.get(key)), None
        if tolerance is not None:
            is_own = None in pair or name.partition(".")[2] in _IMPLEMENTATION
            if kind == "loss_scale" or (kind == "groups" and is_own):
                continue
            within = tolerance.weights if kind == "groups" else None
        if _number_differs(*pair, within):
            yield Difference(kind, name, None, *pair)


def _number_differs(ours: Any, theirs: Any, tolerance: float | None) -> bool:
    """Whether two values from JSON differ, floats by more than `tolerance`."""
    if tolerance is None or not (isinstance(ours, float) and isinstance(theirs, float)):
        return bool(ours != theirs)
    return abs(ours - theirs) > tolerance * max(abs(ours), abs(theirs))


def compare_metrics(
    first: Iterable[Line], second: Iterable[Line], after: int, upto: int, tolerance: Tolerance | None = None
) -> MetricsComparison:
    """Compare the common lines of two metrics.jsonl in the steps (`after`, `upto`].

    Without `tolerance` all numbers except times, memory and throughput are compared bit by bit.
    With one, numbers of training lines may differ by it, relatively, and evaluations are left out:
    a last bit may change a count of right answers. A run also logs the first step after a start, so
    each run may have lines that the other lacks.
    """
    kinds = ("train", "eval") if tolerance is None else ("train",)
    # By step, kind (training first) and split; the later of two lines: the run had gone back.
    ours, theirs = (
        {
            (line["step"], line["kind"] == "eval", str(line.get("split", ""))): line
            for line in lines
            if line.get("kind") in kinds and after < line["step"] <= upto
        }
        for lines in (first, second)
    )
    both = [key for key in sorted(ours) if key in theirs]
    differences = (d for key in both for d in _line_differences(ours[key], theirs[key], tolerance))
    logged = any(step > after + 1 or is_evaluation for step, is_evaluation, _ in theirs)
    return MetricsComparison(len(both), next(differences, None), is_missing=logged and not both)


def _line_differences(first: Line, second: Line, tolerance: Tolerance | None) -> Iterator[Difference]:
    keys = _TRAIN if tolerance is None else _REPRODUCED
    for key in ("metrics",) if first["kind"] == "eval" else keys:
        within = None
        if tolerance is not None:
            within = tolerance.moments if key == "grad_norm" else tolerance.weights
        ours, theirs = first.get(key), second.get(key)
        values = {key: (ours, theirs)}
        if isinstance(ours, dict) and isinstance(theirs, dict):
            values = {f"{key}.{name}": (ours.get(name), theirs.get(name)) for name in {**ours, **theirs}}
        for name, pair in values.items():
            if _number_differs(*pair, within):
                yield Difference(first["kind"], name, None, *pair, first["step"])
