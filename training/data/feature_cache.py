"""Runs a frozen encoder over the data once, before training; steps then read what it made."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from models.base import EncoderInputs, HasFrozenEncoder, SplitName
from training.agreement import first_error
from training.data import feature_file as files
from training.data.feature_file import Draft, Form, Rows
from training.data.fingerprint import add, probes, weights_digest
from training.data.loader import on_device
from training.logging.quantities import size
from training.settings import SettingError

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine, World
    from models.base import Task
    from training.settings import FeatureCache

Tell = Callable[[str], object]
"""Told a line for a person; on one rank only."""
_VERSION = 1
_AT_ONCE = 8
"""Inputs of one forward pass: always as many, so that the numbers are the same for any number of
ranks and any micro-batch. How many rows a matrix has may change how its products are rounded."""
_SPLITS: tuple[SplitName, ...] = ("train", "val")
_EVERY_S = 30.0
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Place:
    """Where encodings may be kept, and what beside weights and data they depend on."""

    folder: Path
    """The program's cache, where the settings name no other."""
    computed: Mapping[str, str]
    """Precision, kernel: what two runs need to have in common."""


@dataclass
class _Pass:
    """One pass of the encoder over all inputs, shared by the ranks. Collective."""

    task: HasFrozenEncoder
    module: Module
    world: World
    inputs: Mapping[SplitName, EncoderInputs]
    tell: Tell
    began: float = field(default_factory=time.monotonic)

    def requests(self) -> list[tuple[SplitName, int]]:
        """Split and first number of every batch."""
        return [(s, n) for s in _SPLITS for n in range(0, len(self.inputs[s]), _AT_ONCE)]

    def rows(self, split: SplitName, first: int) -> dict[str, np.ndarray]:
        """What the encoder makes of a batch, the last one filled up with inputs of the first."""
        inputs = self.inputs[split]
        count = min(_AT_ONCE, len(inputs) - first)
        numbers = [(first + n) % len(inputs) for n in range(_AT_ONCE)]
        batch = on_device(inputs.batch(numbers), self.world.device)
        made = self.task.encode(self.module, batch)
        return {name: _numbers(tensor[:count]) for name, tensor in made.items()}

    def fill(self, folder: Path) -> str | None:
        """Write this rank's share into the draft in `folder`; why the disk did not take it."""
        requests, world = self.requests(), self.world
        starts = {"train": 0, "val": len(self.inputs["train"])}
        fault, said = None, self.began
        for turn in range(0, len(requests), world.size):
            own = turn + world.rank
            # All ranks take as many forward passes: in each, a sharded model gathers weights.
            split, first = requests[min(own, len(requests) - 1)]
            rows = self.rows(split, first)
            if own < len(requests) and fault is None:
                fault = _kept(folder, starts[split] + first, rows)
            if turn and time.monotonic() - said > _EVERY_S:
                said = time.monotonic()
                self.tell(f"encodings: {turn / len(requests):.0%}, {self._left(turn)}")
        return fault

    def _left(self, turn: int) -> str:
        left = (time.monotonic() - self.began) / turn * (len(self.requests()) - turn)
        return f"about {max(1, round(left / 60))} min left"


def use(
    task: Task,
    model: Module,
    module: Module,
    engine: Engine,
    settings: FeatureCache,
    place: Place,
    tell: Tell,
) -> bool:
    """Let `task` give samples with what its frozen encoder makes of them; whether it does now.

    They are computed before the first step, or were by an earlier run. Where that cannot be done,
    `tell` says why and all stays as it is. `module` is what the loop calls, `model` what it was
    built from, both with the weights that the run begins with. Collective; reads and writes the
    disk. Raises SettingError where the settings insist, and DataError.
    """
    part = task.frozen_encoder(model) if isinstance(task, HasFrozenEncoder) else None
    if not isinstance(task, HasFrozenEncoder) or part is None:
        return False
    wanted = settings.mode
    if wanted == "off":
        return False
    limit, root = settings.limit_gb * 1e9, Path(settings.folder or place.folder).expanduser()
    if why := task.varying_inputs():
        return _without(f"{why} changes what the encoder is given in each pass", wanted, tell)
    inputs = {split: task.encoder_inputs(split) for split in _SPLITS}
    world = engine.world
    facts: dict[str, Any] = {
        "version": _VERSION,
        "encoder": weights_digest(engine.state(), part, world),
        "computed": {**place.computed, "device": world.device.type, "torch": torch.__version__},
    }
    if world.rank == 0:
        facts["inputs"] = {split: _identity(found) for split, found in inputs.items()}
    folder = root / f"encodings-{_shared(facts, world)}"
    rows = _everywhere(folder, world)
    if rows is None:
        with _evaluating(module):
            made = _make(_Pass(task, module, world, inputs, tell), folder, facts, limit)
        if made is not None:
            return _without(made, wanted, tell)
        rows = _everywhere(folder, world)
        if rows is None:
            return _without(f"not all ranks see {folder}: name another folder", wanted, tell)
    else:
        tell(f"encodings: read from {folder}")
    task.use_features({"train": rows, "val": _From(rows, len(inputs["train"]))})
    return True


@dataclass(frozen=True)
class _From:
    """The rows from one number on, as a split counts them."""

    rows: Rows
    first: int

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        return self.rows[self.first + number]


def _make(run: _Pass, folder: Path, facts: Mapping[str, Any], limit: float) -> str | None:
    """Compute and keep all encodings in `folder`; why not, where that cannot be. Collective."""
    world = run.world
    forms = {n: Form(a.dtype.str, a.shape[1:]) for n, a in run.rows("train", 0).items()}
    counts = [len(inputs) for inputs in run.inputs.values()]
    needed = files.total_bytes(forms, counts)
    if needed > limit:
        return f"they take {size(needed)}, and feature_cache.limit_gb is {limit / 1e9:g}"
    draft, fault = None, None
    if world.rank == 0:
        run.tell(f"encodings: {size(needed)} in {folder}")
        draft, fault = _begun(folder, forms, sum(counts), needed)
    if told := first_error(world, fault):
        return told
    partial = (
        folder.parent / world.broadcast((draft.folder.name if draft else "").encode()).decode()
    )
    try:
        told = first_error(world, run.fill(partial))
        if told is None and draft is not None:
            fault = _finished(draft, facts)
        return told or first_error(world, fault)
    finally:
        if draft is not None:
            draft.abandon()


def _begun(
    folder: Path, forms: Mapping[str, Form], count: int, needed: int
) -> tuple[Draft | None, str | None]:
    """A draft of what will lie in `folder`; or why there is none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < needed + _SPARE_BYTES:
            return None, f"they take {size(needed)}, and {folder.parent} has {size(free)} free"
        return Draft(folder, forms, count), None
    except OSError as error:
        return None, f"{folder.parent} cannot be written: {error.strerror or error}"


def _finished(draft: Draft, facts: Mapping[str, Any]) -> str | None:
    try:
        draft.finish(facts)
    except OSError as error:
        return f"{draft.folder} cannot be written: {error.strerror or error}"
    return None


def _kept(folder: Path, number: int, rows: Mapping[str, np.ndarray]) -> str | None:
    try:
        files.write(folder, number, rows)
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    return None


def _identity(inputs: EncoderInputs) -> dict[str, Any]:
    """What tells inputs from others: what they say that they are made from, and some of them."""
    digest = hashlib.sha256()
    for number in probes(len(inputs)):
        add(digest, inputs.batch([number]))
    return {"made_from": inputs.made_from, "count": len(inputs), "probes": digest.hexdigest()}


def _without(why: str, wanted: str, tell: Tell) -> bool:
    if wanted == "on":
        raise SettingError("feature_cache.mode", wanted, f"cannot be: {why}", "auto, off", None)
    tell(f"encodings: none are kept, the encoder runs in each step: {why}")
    return False


def _everywhere(folder: Path, world: World) -> Rows | None:
    """What lies in `folder`, if every rank finds it there. Collective."""
    rows = files.read(folder)
    return None if world.agree(int(rows is None)) else rows


def _shared(facts: Mapping[str, Any], world: World) -> str:
    """A digest of what rank 0 says of `facts`. Collective."""
    text = json.dumps(facts, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return world.broadcast(digest.encode()).decode()


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    wide = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
    return wide.cpu().numpy()


@contextmanager
def _evaluating(module: Module) -> Iterator[None]:
    """No gradients, no dropout."""
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train()
