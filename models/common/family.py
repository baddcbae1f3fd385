"""The base of all tasks: what families and custom tasks have in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList, Sequential
from torch.utils.data import default_collate

from gearshift.models.base import (
    Batch,
    Context,
    Draws,
    Facts,
    Goal,
    Groups,
    Loss,
    Metric,
    NumUnits,
    Split,
    SplitName,
    Tensors,
)
from gearshift.models.common.data_reports import library_errors
from gearshift.models.common.layers import HasFrozenParts, count_flops
from gearshift.models.common.split import SPLITS, SplitRule, save_split, split_groups

ENCODER = "encoder"
_ENCODER_WEIGHTS = "a run folder of  --set model.stage=encoder , or a safetensors file of its model"
_CONTAINERS = (Sequential, ModuleList, ModuleDict)
Numbers = NDArray[np.int64]
Measured = Mapping[str, Tensor | tuple[Tensor, Tensor | int]]
"""By name, a sum over the units of the batch, or a sum and its count."""
Scores = dict[str, float | None]
"""Metrics by name; None: undefined."""


class FamilyTask:
    """A task of models/base.py, over data that is split by group.

    A family whose samples are records has the methods `read`, `groups_of` and `sample`, and of the
    model `network`, `loss` and `metric`. Any other family sets `splits` in a `setup` of its own.
    """

    goal = Goal("val_loss", "min")
    units = "samples"
    channels_last = False
    saved_files: Sequence[str] = ()
    """What setup_without_data reads in the run folder."""
    parts: Mapping[str, Sequence[str]] = {}
    """The modules of each part. `encoder`: trained alone in stage encoder, or loaded and frozen."""
    noun = "groups"
    """Of messages: the plural of what stays in one split."""
    repeats = 1
    """How often an epoch has each training sample."""

    def __init__(self, model: Any, data: Any, context: Context) -> None:
        """Keep the settings of the sections `model` and `data`, and the context of the run.

        A setting without effect is not read, so that it is reported as unused. No disk access.
        """
        self.model_settings = model
        self.data_settings = data
        self.context = context
        self.splits: dict[SplitName, Split] = {}
        self.groups: Groups = {}
        """The groups of each split, after setup."""
        self.encoder: Path | None = None
        self.is_frozen = False
        self.stage = "whole"
        self.loaded: dict[str, str] = {}
        """What initial weights were loaded, by setting."""
        if ENCODER in self.parts:
            self.stage = model.stage
            if self.stage != ENCODER:
                self.encoder = path_of(model.encoder)
                self.is_frozen = model.freeze_encoder

    @cached_property
    def rule(self) -> SplitRule:
        """The rule of the split, by the settings."""
        return SplitRule.of(self.data_settings, self.context)

    def read(self) -> Any:
        """All records of the data, with a length. Raises DataError."""
        raise NotImplementedError

    def groups_of(self, records: Any) -> Sequence[str] | NDArray[np.str_]:
        """The group of each record, which stays in one split."""
        raise NotImplementedError

    def fit(self, train: Numbers) -> None:
        """Fit statistics and vocabularies on the training records, by number, and save facts."""

    def sample(self, number: int, given: int, draws: Draws) -> Any:
        """The sample of record `number` with the input of record `given`.

        They differ in a noise control only.
        """
        raise NotImplementedError

    def setup(self) -> None:
        """Read and split the data; the run folder keeps the split and what is fitted.

        Disk access: rank 0 first, then the other ranks. Raises DataError.
        """
        self.records = self.read()
        groups = np.asarray(self.groups_of(self.records))
        self.groups = self.split_groups(groups)
        numbers = {}
        for name in SPLITS:
            is_in_split = np.isin(groups, list(self.groups[name]))
            numbers[name] = np.flatnonzero(is_in_split)
        # Before samples are repeated: each record counts once in statistics.
        self.fit(numbers["train"])
        numbers["train"] = np.tile(numbers["train"], self.repeats)
        for place, name in enumerate(SPLITS):
            targets = numbers[name]
            inputs = targets
            if self.data_settings.control != "real":
                from gearshift.models.common.noise_control import of_other_groups

                inputs = targets[of_other_groups(groups[targets], (self.rule.seed, place))]
            self.splits[name] = RecordSplit(self.sample, targets, inputs)

    def split_groups(self, groups: Iterable[str]) -> Groups:
        """The `groups` of each split, by `eval.share`, `data.split_seed` and `data.fold`.

        Groups are what must not be in two splits: patients, recordings, documents; `noun` names
        them in messages. The run folder records the split. Raises DataError.
        """
        splits = split_groups(groups, self.rule, self.noun)
        self.save_split(splits)
        return splits

    def save_split(self, splits: Groups) -> None:
        """Record a split in the run folder. Raises DataError if it has another one."""
        save_split(splits, self.context, self.rule)

    def network(self) -> HasFrozenParts:
        """The model with random weights, drawn from torch's global generator."""
        raise NotImplementedError

    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator.

        `model.encoder` provides the weights of the encoder. Raises DataError.
        """
        model = self.network()
        if self.encoder is not None:
            # Here, with safetensors: for this setting only.
            from gearshift.models.common.initial_weights import load

            self.loaded[ENCODER] = load(
                "model.encoder",
                model,
                self.encoder,
                _ENCODER_WEIGHTS,
                tuple(f"{name}." for name in self.parts[ENCODER]),
                open_checkpoint=self.context.open_checkpoint,
            )
        encoder = self.model_parts(model).get(ENCODER, ())
        if self.is_frozen:
            model.freeze(*encoder)
        if self.stage == ENCODER:
            model.train_only(*encoder)
        return model

    def data(self, split: SplitName) -> Any:
        """The samples of a split."""
        return self.splits[split]

    def collate(self, samples: Sequence[Any]) -> Batch:
        """One batch from samples, mappings of names to tensors and numbers, and its `units`."""
        return {**default_collate(list(samples)), "units": len(samples)}

    def num_units(self, batch: Batch) -> NumUnits:
        """The units that `collate` counted."""
        return int(batch["units"])

    def measure(self, model: Module, batch: Batch) -> Measured:
        """`loss` and any other metrics of `batch`, each as a sum over its units.

        The names are the same for every batch. A metric that is not a mean over units is a pair:
        sum and count. Evaluation reports the means as val_loss, val_accuracy and so on.
        """
        raise NotImplementedError

    def loss(self, model: Module, batch: Batch) -> Loss:
        """The loss summed over the units of `batch`."""
        return Loss(loss_of(self.measure(model, batch)), {})

    def metric(self) -> Metric:
        """The means of all that `measure` returns."""
        return Sums(self._pairs, means)

    def _pairs(self, model: Module, batch: Batch) -> dict[str, tuple[Any, Any]]:
        """By name, what a batch adds to the sum and to the count of a mean."""
        units = self.num_units(batch)
        pairs = {}
        for name, value in self.measure(model, batch).items():
            pairs[f"val_{name}"] = value if isinstance(value, tuple) else (value, units)
        return pairs

    def blocks(self, model: Module) -> list[Module]:
        """The children with parameters, in order; containers are replaced by their members."""
        blocks: list[Module] = []
        for child in model.children():
            blocks += self.blocks(child) if isinstance(child, _CONTAINERS) else [child]
        return [block for block in blocks if next(block.parameters(), None) is not None]

    def model_parts(self, model: Module) -> Mapping[str, Sequence[Module]]:
        """As HasParts.model_parts."""
        return {
            part: [model.get_submodule(name) for name in names]
            for part, names in self.parts.items()
        }

    def preview(self, model: Module) -> str | None:
        """None: no preview."""
        return None

    def example(self) -> Sequence[Any] | None:
        """The inputs of the model for one sample, to count operations; None: unknown."""
        return None

    def flops_per_sample(self, model: Module) -> float | None:
        """As counted by torch for `example`; None: unknown. Collective if the model is sharded."""
        inputs = self.example()
        if inputs is None:
            return None
        return count_flops(model, inputs, self.frozen_parts())

    def frozen_parts(self) -> Sequence[str]:
        """The modules that run for the example and have no backward pass."""
        if self.is_frozen:
            return self.parts[ENCODER]
        return ()

    def facts(self) -> Facts:
        """The numbers of groups and samples of each split, and the initial weights."""
        facts: dict[str, Any] = {}
        if self.groups:
            facts["groups"] = {name: len(self.groups[name]) for name in SPLITS}
        facts["samples"] = {name: len(split) for name, split in self.splits.items()}
        return facts | self.loaded


def loss_of(sums: Measured) -> Tensor:
    """The sum of the loss, of what `FamilyTask.measure` gives."""
    loss = sums["loss"]
    return loss[0] if isinstance(loss, tuple) else loss


@dataclass(frozen=True)
class RecordSplit:
    """The samples of one split, by records; see models/base.py: Split."""

    make: Callable[[int, int, Draws], Any]
    """`FamilyTask.sample`."""
    numbers: Numbers
    """The record of each sample."""
    given: Numbers
    """The record of its input: the same, except in a noise control."""

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, index: int, draws: Draws) -> Any:
        return self.make(int(self.numbers[index]), int(self.given[index]), draws)


class Sums:
    """A metric whose counts are sums by name over a split."""

    def __init__(
        self,
        measure: Callable[[Module, Batch], Facts],
        scores: Callable[[Tensors], Scores],
    ) -> None:
        """`measure` gives by name what a batch adds, a tensor or number or a tuple of them.

        `scores` gives the metrics of the sums, each a vector.
        """
        self._measure = measure
        self._scores = scores
        self._lengths: dict[str, int] = {}

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """What `batch` adds: float64. Raises ValueError if names differ from those before."""
        vectors = {}
        for name, value in self._measure(model, batch).items():
            parts = value if isinstance(value, tuple) else (value,)
            vectors[name] = [_vector(part) for part in parts]
        self._lengths = self._lengths or {n: sum(map(len, parts)) for n, parts in vectors.items()}
        if [*self._lengths] != [*vectors]:
            before = ", ".join(self._lengths)
            now = ", ".join(vectors)
            raise ValueError(f"measured {before} for one batch and {now} for another")
        # Python's numbers are on the CPU; what a model returns is on its device.
        everything = list(chain.from_iterable(vectors.values()))
        device = next((part.device for part in everything if part.device.type != "cpu"), None)
        return torch.cat([part.to(device) for part in everything])

    def result(self, counts: Tensor) -> Scores:
        """The metrics of summed counts; at least one batch was measured before."""
        sums = counts.split([*self._lengths.values()])
        return self._scores(dict(zip(self._lengths, sums, strict=True)))


def _vector(value: Any) -> Tensor:
    """A tensor or number as a vector in float64."""
    if not isinstance(value, Tensor):
        return torch.tensor(value, dtype=torch.float64).flatten()
    if value.device.type == "mps":  # has no float64
        value = value.cpu()
    return value.double().flatten()


def means(pairs: Tensors) -> Scores:
    """The mean of each pair of sum and count; None where the count is 0."""
    scores: Scores = {}
    for name, pair in pairs.items():
        total, count = pair.tolist()
        scores[name] = total / count if count else None
    return scores


def padded(
    arrays: Sequence[NDArray[Any]],
    fill: float = 0,
    length: int | None = None,
    multiple: int = 1,
) -> Tensor:
    """`arrays`, of any lengths, as one tensor [batch, time, ...], filled up at the end.

    To `length`, or else to the longest in multiples of `multiple`.
    """
    longest = max(map(len, arrays))
    time = length or ceil(longest / multiple) * multiple
    first = arrays[0]
    rows = np.full((len(arrays), time, *first.shape[1:]), fill, first.dtype)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(rows)


def columns_of(samples: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The values of `samples` by name; all have the names of the first one."""
    return {name: [sample[name] for sample in samples] for name in samples[0]}


def path_of(text: str | None) -> Path | None:
    """The path of a setting."""
    return None if text is None else Path(text).expanduser()


def spread_positions(count: int, limit: int) -> list[int]:
    """At most `limit` evenly spaced positions below `count`, including the first and the last."""
    positions = np.linspace(0, count - 1, limit).astype(int)
    return sorted(set(positions.tolist()))


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode without gradients; then the mode from before."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def printable(text: str) -> str:
    """`text` without control characters."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


FACTS_FILE = "model_facts.json"
"""Facts of the data that setup saves in the run folder for a trained model without its data."""
SavedFacts = TypeVar("SavedFacts")


def save_facts(facts: Any, context: Context) -> None:
    """Write the dataclass `facts`, as JSON, into the run folder unless it holds the same."""
    context.save(FACTS_FILE, json.dumps(asdict(facts), indent=1))


def load_facts(folder: Path | None, kind: type[SavedFacts]) -> SavedFacts:
    """The saved facts, a dataclass `kind`. Reads the disk. Raises DataError."""
    path = (folder or Path()) / FACTS_FILE
    with library_errors(
        f"'{path}' cannot be read",
        str(path.parent.absolute()),
        allowed="a run folder or an export of this version, whose setup saved that file",
        hint="resume the run for a step, with its data: that writes the file",
    ):
        return TypeAdapter(kind).validate_json(path.read_bytes())
