"""Compares checkpoints tensor by tensor, metrics line by line, and the traces of two replays."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint.reader import Checkpoint
from gearshift.training.checkpoint.tensor_file import BUFFER, EMA, WEIGHT
from gearshift.training.settings import flat
from gearshift.training.trace import SAMPLE

# Numbers that other engines reproduce to rounding; loss scale and parts may differ.
_REPRODUCED = ("loss", "grad_norm", "lr", "samples", "tokens")
# Numbers that do not depend on machine and time.
_LOGGED = (*_REPRODUCED, "epoch", "parts", "loss_scale", "metrics")

_NOISE = 3e-7
"""Of the largest gradients: those below are what rounding leaves of a gradient that is 0, such as
that of a bias before batch normalization. In fp32, after 2 and 4 steps of abr:tiny and
eeg_text:tiny, these are at most 1e-7, and others at least 1e-6."""


@dataclass(frozen=True)
class Tolerance:
    """Allowed relative differences of two runs of the same training."""

    weights: float
    """For weights, their average, buffers, and the loss."""
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
        if not self.name:
            return self.kind
        if self.index is None:
            return f"{self.kind} of {self.name}"
        return f"{self.kind} of {self.name}{list(self.index)}"


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
    noise: Sequence[str] = ()
    """Tensors above the tolerance that do not count: their gradients are rounding only."""


@dataclass(frozen=True)
class MetricsComparison:
    lines: int
    """Lines that both runs have, and that were compared."""
    first: Difference | None
    is_missing: bool = False
    """None of the lines that the other run logged is among those of the first run; the line of
    the other run's first step does not count."""


def compare(
    first: Checkpoint,
    second: Checkpoint,
    tolerance: Tolerance | None = None,
) -> TensorComparison:
    """Compare everything that resuming restores. Touches disk, in bounded memory.

    Without `tolerance`, bit by bit: equal NaNs are equal and -0 is not 0. With one, a tensor may
    differ by it relative to its norm. The norm, not single elements: for a nearly zero gradient,
    AdamW turns rounding into a whole step. What depends on the engine is then not compared: the
    loss scale and the options of parameter groups, whose learning rates are in the metrics, and
    neither are parameters with gradients of rounding only, which an optimizer turns into whole
    steps. Integers and steps must be equal. The first difference is that of a number, or of a
    tensor in the order of the model, weights before slots and buffers.
    """
    numbers = _numbers(first)
    others = _numbers(second)
    difference = next(_differing(numbers, others, tolerance), None)
    without_gradient = _without_gradient(first) if tolerance is not None else set()

    count = 0
    distances: dict[str, float] = {}
    noise: list[str] = []
    for kind in (WEIGHT, *sorted({*first.kinds} - {WEIGHT}), BUFFER):
        for name in first.names(kind):
            form = f"shape.{kind} {name}"
            if numbers[form] != others.get(form):
                continue
            count += 1
            relative, at = _distance(first, second, kind, name)
            if at is None:
                continue
            tensor = f"{kind} of {name}"
            distances[tensor] = relative
            if tolerance is not None and relative <= tolerance.of(kind):
                continue
            if kind != BUFFER and name in without_gradient and math.isfinite(relative):
                noise.append(tensor)
            elif difference is None:
                index = np.unravel_index(at, first.shape(kind, name))
                difference = Difference(
                    kind,
                    name,
                    tuple(map(int, index)),
                    first.interval(kind, name, at, at + 1).item(),
                    second.interval(kind, name, at, at + 1).item(),
                )
    largest_in = max(distances, key=distances.__getitem__, default=None)
    largest = max(distances.values(), default=0.0)
    return TensorComparison(
        count,
        len(distances),
        difference,
        largest,
        largest_in,
        tuple(noise),
    )


def _without_gradient(checkpoint: Checkpoint) -> set[str]:
    """The parameters whose gradients are rounding only, by the second moments that Adam keeps."""
    kind = "exp_avg_sq"
    sizes: dict[str, float] = {}
    for name in checkpoint.names(kind):
        squares = 0.0
        for part in checkpoint.parts(kind, name):
            squares += float(part.double().abs().sum())
        sizes[name] = math.sqrt(squares / max(1, math.prod(checkpoint.shape(kind, name))))
    largest = max(sizes.values(), default=0.0)
    return {name for name, size in sizes.items() if size < _NOISE * largest}


def _distance(
    first: Checkpoint,
    second: Checkpoint,
    kind: str,
    name: str,
) -> tuple[float, int | None]:
    """The norm of the difference over the larger norm, and where the difference is largest.

    Infinite where one is not finite, and for different integers. The place is an index of the
    flattened tensor; without one no bit differs.
    """
    squares = torch.zeros(3, dtype=torch.float64)
    at = None
    largest = -1.0
    start = 0
    for part, other in zip(first.parts(kind, name), second.parts(kind, name), strict=True):
        bytes_differ = part.view(torch.uint8) != other.view(torch.uint8)
        differs = bytes_differ.view(len(part), -1).any(1)
        a = part.double()
        b = other.double()
        apart = (a - b).abs().nan_to_num(nan=math.inf)
        if not part.is_floating_point():
            apart.fill_(math.inf)
        apart[~differs] = -1.0  # also where both are the same NaN or infinity
        for n, values in enumerate((apart.clamp(min=0.0), a[a.isfinite()], b[b.isfinite()])):
            squares[n] += values.square().sum()
        highest = float(apart.max())
        if highest > largest:
            at = start + int(apart.argmax())
            largest = highest
        start += len(part)
    norm, *norms = squares.sqrt().tolist()
    return norm / (max(norms) or 1.0), at


def _numbers(checkpoint: Checkpoint) -> Facts:
    """The forms of tensors, and the numbers of state.json and the manifest, by kind and name."""
    forms = {}
    for kind in (*checkpoint.kinds, BUFFER):
        for name in checkpoint.names(kind):
            shape = list(checkpoint.shape(kind, name))
            forms[f"{kind} {name}"] = f"{shape} {checkpoint.dtype(kind, name)}"
    return flat(
        {
            "shape": forms,
            "samples": checkpoint.manifest.samples,
            "steps": checkpoint.steps,
            "groups": {str(number): group for number, group in enumerate(checkpoint.groups)},
            "loss_scale": checkpoint.loss_scale,
        }
    )


def _differing(
    first: Facts,
    second: Facts,
    tolerance: Tolerance | None,
    step: int | None = None,
) -> Iterator[Difference]:
    """The values that differ, floats by more than `tolerance`; `step`: of a line of metrics."""
    for key in {**first, **second}:
        kind, _, name = key.partition(".")
        a = first.get(key)
        b = second.get(key)
        within = 0.0
        if tolerance is not None:
            if kind in ("loss_scale", "groups"):
                continue
            if kind == "train":
                within = tolerance.moments if name == "grad_norm" else tolerance.weights
        if isinstance(a, float) and isinstance(b, float):
            is_equal = a == b or abs(a - b) <= within * max(abs(a), abs(b))
        else:
            is_equal = bool(a == b)
        if not is_equal:
            yield Difference(kind, name, None, a, b, step)


def compare_metrics(
    first: Iterable[Facts],
    second: Iterable[Facts],
    after: int,
    upto: int,
    tolerance: Tolerance | None = None,
) -> MetricsComparison:
    """Compare the common lines of two metrics.jsonl in the steps (`after`, `upto`].

    Without `tolerance` all numbers except times, memory and throughput are compared bit by bit.
    With one, numbers of training lines may differ by it, relatively, and evaluations are left out:
    a last bit may change a count of right answers. A run also logs the first step after a start, so
    each run may have lines that the other lacks.
    """
    kinds: tuple[str, ...] = ("train", "eval") if tolerance is None else ("train",)
    keys = _LOGGED if tolerance is None else _REPRODUCED

    def by_place(lines: Iterable[Facts]) -> dict[tuple[int, bool, str], Facts]:
        """By step, kind (training first) and split; the later of two: the run had gone back."""
        places: dict[tuple[int, bool, str], Facts] = {}
        for line in lines:
            kind = line.get("kind")
            if kind in kinds and after < line["step"] <= upto:
                place = line["step"], kind == "eval", str(line.get("split", ""))
                places[place] = flat({kind: {key: line.get(key) for key in keys}})
        return places

    lines = by_place(first)
    others = by_place(second)
    common = sorted(lines.keys() & others.keys())
    difference = None
    for place in common:
        differences = _differing(lines[place], others[place], tolerance, place[0])
        difference = difference or next(differences, None)
    is_logged = any(step > after + 1 or is_evaluation for step, is_evaluation, _ in others)
    return MetricsComparison(
        len(common),
        difference,
        is_missing=is_logged and not common,
    )


def first_difference(
    first: Path, second: Path, after: int, *, same_split: bool
) -> Difference | None:
    """The first line of two traces that differs, from the state after step `after` on.

    Its values are the names of both lines, such as those of samples. Without `same_split` only
    samples are compared: all else is computed in another order. Reads the disk.
    """
    lines = _lines(first, after, same_split)
    others = _lines(second, after, same_split)
    for line, other in zip(lines, others, strict=False):
        if line != other:
            earlier = line if line[:2] <= other[:2] else other
            step, _, kind, name = earlier[:4]
            return Difference(kind, name, None, line[3], other[3], step)
    return None


def _lines(folder: Path, after: int, same_split: bool) -> list[Any]:
    """The lines of all ranks in the order of a step."""
    lines = []
    for path in sorted(folder.iterdir()):
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line[0] >= after and (same_split or line[2] == SAMPLE):
                lines.append(line)
    if not same_split:  # its samples are in another order, and twice where shares change
        return sorted({tuple(line[:4]) for line in lines})
    return sorted(lines, key=lambda line: line[:2])
