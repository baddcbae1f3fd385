"""The base class of custom tasks: all of `models.base.Task` except three methods."""

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
"""By name, a sum over the units of the batch, or a sum and its count."""
Pairs = dict[str, tuple[Tensor, Tensor | int]]
_CONTAINERS = (Sequential, ModuleList, ModuleDict)


class CustomTask(ABC):
    """A custom task: your class builds the model, returns the samples and measures a batch.

    Its settings are the nested classes `Model` and `Data`, pydantic models whose fields have
    defaults: `--set model.width=64` sets `self.model_settings.width`. Any other method can be
    overridden; models/base.py: Task documents what the training loop expects of it.
    """

    goal = Goal("val_loss", "min")
    units = "samples"
    channels_last = False
    fields: Sequence[str] = ("input", "target")
    """Names of the parts of a sample in a batch, where a sample is a tuple."""
    defaults: Mapping[str, Any] = {}
    """Settings of any section, nested or dotted: `{"optim": {"lr": 1e-3}}`."""
    sizes: Mapping[str, Mapping[str, Any]] = {}
    """The settings that each size changes, from small to large; the first is the default."""
    saved_files: Sequence[str] = ()
    """The files in the run folder that `setup_without_data` reads, if the task has that method."""
    stages: Sequence[Stage] = ()
    """What mode `staged` trains, in this order, each in its own run."""
    stage_settings: Mapping[str, Mapping[str, Any]] = {}
    """The settings that each stage changes: what it builds, trains and freezes."""

    def __init__(self, model: Any, data: Any, context: Context) -> None:
        """Keep the settings of the sections `model` and `data`, and the context of the run."""
        self.model_settings, self.data_settings, self.context = model, data, context
        self._splits: dict[SplitName, Split] = {}

    @abstractmethod
    def build(self) -> Module:
        """The model on the CPU, its weights drawn from torch's global generator."""

    @abstractmethod
    def samples(self, split: SplitName) -> Sequence[Any] | Split:
        """The samples of `train`, `val` or `test`; called once for each.

        Anything with a length and an index: a list, a torch Dataset. A sample is a mapping of names
        to tensors, arrays or numbers, or a tuple whose parts `fields` names. An object with a
        method `sample(index, draws)` instead of an index can draw new samples in each epoch.
        """

    @abstractmethod
    def measure(self, model: Module, batch: Batch) -> Measured:
        """`loss` and any other metrics of `batch`, each as a sum over its units.

        The names are the same for every batch. A metric that is not a mean over units is a pair:
        sum and count. Evaluation reports the means as val_loss, val_accuracy and so on.
        """

    def setup(self) -> None:
        """Read the samples of each split. Raises DataError if a split is empty."""
        for split in SPLITS:
            samples = self.samples(split)
            made: Any = samples if hasattr(samples, "sample") else _FixedSamples(samples)
            if not len(made):
                raise DataError(
                    f"{type(self).__name__} has no samples for {split}",
                    where=f"{type(self).__name__}.samples({split!r})",
                    allowed="at least one sample each for train, val and test",
                )
            self._splits[split] = made

    def data(self, split: SplitName) -> Split:
        """The samples of a split."""
        return self._splits[split]

    def collate(self, samples: Sequence[Any]) -> Batch:
        """A mapping of names to the collated parts of all samples (torch's default_collate).

        Raises DataError if a sample is neither a mapping nor a tuple as long as `fields`.
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
            where=f"{type(self).__name__}.samples()",
            allowed=f"a mapping, or a tuple of {', '.join(self.fields)} (fields of the class)",
        )

    def num_units(self, batch: Batch) -> int:
        """The number of samples in `batch`."""
        return _length(batch)

    def loss(self, model: Module, batch: Batch) -> Loss:
        """The sum `loss` of `measure`. Raises ValueError if there is none."""
        return Loss(self._pairs(model, batch)["val_loss"][0], {})

    def metric(self) -> CustomMetric:
        """The means of all that `measure` returns."""
        return CustomMetric(self._pairs)

    def _pairs(self, model: Module, batch: Batch) -> Pairs:
        measured, num_units = self.measure(model, batch), self.num_units(batch)
        if "loss" not in measured:
            names = ", ".join(measured) or "nothing"
            raise ValueError(f"{type(self).__name__}.measure returned {names}, but no 'loss'")
        return {
            f"val_{name}": value if isinstance(value, tuple) else (value, num_units)
            for name, value in measured.items()
        }

    def blocks(self, model: Module) -> list[Module]:
        """The children with parameters, in order; containers are replaced by their members."""
        found: list[Module] = []
        for child in model.children():
            found += self.blocks(child) if isinstance(child, _CONTAINERS) else [child]
        return [block for block in found if any(True for _ in block.parameters())]

    def preview(self, model: Module) -> str | None:
        """None: no preview."""
        return None

    def flops_per_sample(self, model: Module) -> float | None:
        """None: unknown."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """The number of samples of each split."""
        return {"samples": {split: len(found) for split, found in self._splits.items()}}


class CustomMetric:
    """Sum and count of each metric that a custom task measures."""

    def __init__(self, measure: Callable[[Module, Batch], Pairs]) -> None:
        self._measure = measure
        self._means: Means | None = None

    def update(self, model: Module, batch: Batch) -> Tensor:
        """See Means. Raises ValueError if the names differ from those of an earlier batch."""
        found = self._measure(model, batch)
        if self._means is not None and self._means.names != tuple(found):
            before, now = (", ".join(names) for names in (self._means.names, found))
            raise ValueError(f"measure returned {before} for one batch and {now} for another")
        self._means = Means(tuple(found), lambda model, batch: found)
        return self._means.update(model, batch)

    def result(self, counts: Tensor) -> dict[str, float]:
        """The means by name; at least one batch was measured before."""
        assert self._means is not None, "a split holds at least one batch"
        return self._means.result(counts)


class _FixedSamples:
    """A sequence as a split: the samples are the same in every epoch."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int, draws: Draws) -> Any:
        return self._samples[index]


def _length(value: Any) -> int:
    """Length of the first axis of the first tensor; texts are a list with one entry per sample."""
    if isinstance(value, Tensor):
        return value.shape[0]
    inner = list(value.values()) if isinstance(value, Mapping) else value
    return len(inner) if isinstance(inner[0], str | bytes) else _length(inner[0])
