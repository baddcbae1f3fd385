"""What a task of your own need not say: all of `models.base.Task` but three methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList, Sequential
from torch.utils.data import default_collate

from models.base import Batch, Context, DataError, Draws, Goal, Loss, Split, SplitName
from models.catalog import Stage
from models.common.means import Means
from models.common.split import SPLITS

Measured = Mapping[str, Tensor | tuple[Tensor, Tensor | int]]
"""By name a sum over the units of the batch, or a sum and what it is counted over."""
Pairs = dict[str, tuple[Tensor, Tensor | int]]
_CONTAINERS = (Sequential, ModuleList, ModuleDict)


class CustomTask(ABC):
    """A task whose class says what is built, what is learnt from, and what is measured.

    Settings of its own stand in classes `Model` and `Data` within it, pydantic models whose fields
    have defaults: `--set model.width=64` then reaches `self.model_settings.width`. Each of the
    other methods may be written anew, too; models/base.py: Task tells what it owes the loop.
    """

    goal = Goal("val_loss", "min")
    units = "samples"
    channels_last = False
    fields: Sequence[str] = ("input", "target")
    """What the parts of a sample are called in a batch, where a sample is a tuple."""
    defaults: Mapping[str, Any] = {}
    """Settings of any section, nested or dotted: `{"optim": {"lr": 1e-3}}`."""
    sizes: Mapping[str, Mapping[str, Any]] = {}
    """For each size, from small to large, the settings it changes; the first is the default."""
    stages: Sequence[Stage] = ()
    """What mode `staged` trains one after the other, each as a run of its own."""
    stage_settings: Mapping[str, Mapping[str, Any]] = {}
    """For each of these stages the settings it changes: what it builds, trains and freezes."""

    def __init__(self, model: Any, data: Any, context: Context) -> None:
        """Keeps the settings of the sections `model` and `data`, and what the run is like."""
        self.model_settings, self.data_settings, self.context = model, data, context
        self._splits: dict[SplitName, Split] = {}

    @abstractmethod
    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator."""

    @abstractmethod
    def samples(self, split: SplitName) -> Sequence[Any] | Split:
        """The samples of `train`, `val` or `test`, called once each.

        Anything with a length and an index: a list, a torch Dataset. A sample is a mapping of name
        to tensor, array or number, or a tuple whose parts are called as `fields` says. With a
        method `sample(index, draws)` in the place of an index it may be drawn anew each epoch.
        """

    @abstractmethod
    def measure(self, model: Module, batch: Batch) -> Measured:
        """`loss` and whatever else is to be known of `batch`, each as a sum over its units.

        The same names for every batch. Where something counts other things than units, a pair: the
        sum and the count. Evaluation gives their means as val_loss, val_accuracy and so on.
        """

    def setup(self) -> None:
        """Make the splits. Raises DataError where one is empty."""
        for split in SPLITS:
            found = self.samples(split)
            made: Any = found if hasattr(found, "sample") else _Listed(found)
            if not len(made):
                raise DataError(
                    f"{type(self).__name__} has no samples for {split}",
                    where=f"what samples({split!r}) gives",
                    allowed="at least one sample each for train, val and test",
                )
            self._splits[split] = made

    def data(self, split: SplitName) -> Split:
        """The samples of a split."""
        return self._splits[split]

    def collate(self, samples: Sequence[Any]) -> Batch:
        """A mapping of name to what torch makes of that part of all samples.

        Raises DataError where a sample is no mapping, and no tuple of as many parts as `fields`.
        """
        batch: Batch = default_collate([self._named(sample) for sample in samples])
        return batch

    def _named(self, sample: Any) -> Mapping[str, Any]:
        if isinstance(sample, Mapping):
            return sample
        if isinstance(sample, tuple | list) and len(sample) == len(self.fields):
            return dict(zip(self.fields, sample, strict=True))
        raise DataError(
            f"a sample of {type(self).__name__} is a {type(sample).__name__}",
            where="what samples() gives",
            allowed=f"a mapping, or a tuple of {', '.join(self.fields)} (fields of the class)",
        )

    def num_units(self, batch: Batch) -> int:
        """Samples in `batch`."""
        return _length(batch)

    def loss(self, model: Module, batch: Batch) -> Loss:
        """The sum that `measure` calls loss. Raises ValueError where it gives none."""
        return Loss(self._pairs(model, batch)["val_loss"][0], {})

    def metric(self) -> CustomMetric:
        """The means of all that `measure` gives."""
        return CustomMetric(self._pairs)

    def _pairs(self, model: Module, batch: Batch) -> Pairs:
        found, units = self.measure(model, batch), self.num_units(batch)
        if "loss" not in found:
            given = ", ".join(found) or "nothing"
            raise ValueError(f"{type(self).__name__}.measure gives {given}, and no 'loss'")
        return {
            f"val_{name}": value if isinstance(value, tuple) else (value, units)
            for name, value in found.items()
        }

    def blocks(self, model: Module) -> list[Module]:
        """The children that have weights, in order; in the place of containers, their members."""
        found: list[Module] = []
        for child in model.children():
            found += self.blocks(child) if isinstance(child, _CONTAINERS) else [child]
        return [block for block in found if any(True for _ in block.parameters())]

    def preview(self, model: Module) -> str | None:
        """None: nothing to read."""
        return None

    def flops_per_sample(self, model: Module) -> float | None:
        """None: not known."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """How many samples each split has."""
        return {"samples": {split: len(found) for split, found in self._splits.items()}}


class CustomMetric:
    """Sum and count of each thing that a task measures."""

    def __init__(self, measure: Callable[[Module, Batch], Pairs]) -> None:
        self._measure = measure
        self._means: Means | None = None

    def update(self, model: Module, batch: Batch) -> Tensor:
        """See Means. Raises ValueError where other things are measured than before."""
        found = self._measure(model, batch)
        if self._means is not None and self._means.names != tuple(found):
            before, now = (", ".join(names) for names in (self._means.names, found))
            raise ValueError(f"measure gave {before} of one batch and {now} of another")
        self._means = Means(tuple(found), lambda model, batch: found)
        return self._means.update(model, batch)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The means by name; known once a batch was measured."""
        assert self._means is not None, "a split holds at least one batch"
        return self._means.result(counts)


class _Listed:
    """A sequence as a split: samples that are the same in each epoch."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int, draws: Draws) -> Any:
        return self._samples[index]


def _length(value: Any) -> int:
    """Along the first axis of the first tensor; texts stand in a list, one each."""
    if isinstance(value, Tensor):
        return value.shape[0]
    inner = list(value.values()) if isinstance(value, Mapping) else value
    return len(inner) if isinstance(inner[0], str | bytes) else _length(inner[0])
