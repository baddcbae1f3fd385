"""The base class of custom tasks: all of `models.base.Task` except three methods."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, ModuleDict, ModuleList, Sequential
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate

from models.base import Batch, Context, DataError, Draws, Goal, Loss, Split, SplitName
from models.catalog import Stage
from models.common.split import SPLITS, SplitRule, save_split, split_groups

Measured = Mapping[str, Tensor | tuple[Tensor, Tensor | int]]
"""By name, a sum over the units of the batch, or a sum and its count."""
Pairs = dict[str, tuple[Tensor, Tensor | int]]
_SAME = 1e-3
"""Relative difference of two losses that count as equal; twice the samples double a sum."""
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

        A task without a test split returns None or nothing for it.

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
        """Read the samples of each split.

        Raises DataError if a split is empty or has no length and no index.
        """
        for split in SPLITS:
            samples: Any = self.samples(split)
            if split == "test" and (samples is None or (hasattr(samples, "__len__") and not len(samples))):
                continue
            draws = hasattr(samples, "sample")
            try:
                if not len(samples) or not (draws or samples[0] is not None):
                    raise ValueError("there is no sample")
            except (TypeError, KeyError, ValueError) as error:
                raise DataError(
                    f"{type(self).__name__}.samples({split!r}): {type(error).__name__}: {error}",
                    where=self._place("samples"),
                    allowed="a list, a torch Dataset or another sequence, not a generator or a table; at "
                    "least one sample each for train and val",
                ) from None
            self._splits[split] = samples if draws else _FixedSamples(samples)

    def split_groups(self, groups: Iterable[str], noun: str = "groups") -> dict[SplitName, list[str]]:
        """The `groups` of each split, by `eval.share`, `data.split_seed` and `data.fold`.

        Groups are what must not be in two splits: patients, recordings, documents; `noun` names
        them in messages. The run folder records the split. Raises DataError.
        """
        rule, folder = SplitRule.of(self.data_settings, self.context), self.context.folder
        splits = split_groups(groups, rule, noun)
        if folder is not None:
            save_split(splits, folder, self.context.reset_data, rule)
        return splits

    def check_measures(self, model: Module, once: Batch, twice: Batch) -> None:
        """Check what `measure` returns: sums as scalars, and the metric of the goal.

        Raises DataError with the file and line of `measure`.
        """
        sums, name = self._measured(model, once), type(self).__name__
        for key, value in sums.items():
            for part in value if isinstance(value, tuple) else (value,):
                if not isinstance(part, Tensor | int | float) or (isinstance(part, Tensor) and part.dim()):
                    shape = (
                        f"of shape {list(part.shape)}" if isinstance(part, Tensor) else type(part).__name__
                    )
                    raise DataError(
                        f"{name}.measure returns {key!r} as {shape}",
                        where=self._place("measure"),
                        allowed="a scalar tensor: the sum over the samples; or a pair of a sum and a count",
                    )
        names = [f"val_{key}" for key in sums]
        if self.goal.metric not in names and type(self).metric is CustomTask.metric:
            raise DataError(
                f"the goal of {name} is {self.goal.metric!r}, which measure does not return",
                where=self._place("measure"),
                allowed=", ".join(names),
                did_you_mean="".join(get_close_matches(self.goal.metric, names, n=1)),
            )
        losses = (measured["loss"] for measured in (sums, self._measured(model, twice)))
        first, second = (float(loss[0] if isinstance(loss, tuple) else loss) for loss in losses)
        is_sum = self.num_units(twice) == self.num_units(once) or abs(first) < _SAME
        if not is_sum and abs(second - first) <= _SAME * abs(first):
            raise DataError(
                f"the loss of {name} does not grow with the batch: twice the samples give {second:.6g} "
                f"instead of {2 * first:.6g}. A mean makes training depend on micro-batches and processes",
                where=self._place("measure"),
                allowed="the sum over the samples of the batch",
                fix='in measure, use reduction="sum", or multiply the mean by the samples',
            )

    def _place(self, method: str) -> str:
        """File and line of a method of the class."""
        function = getattr(type(self), method)
        try:
            return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
        except (OSError, TypeError):  # typed into a session of Python
            return f"{type(self).__name__}.{method}"

    def data(self, split: SplitName) -> Split:
        """The samples of a split."""
        return self._splits[split]

    def collate(self, samples: Sequence[Any]) -> Batch:
        """A mapping of names to the collated parts of all samples (torch's default_collate).

        Numbers in float64, the default of numpy and of Python, become those of torch's default.
        Raises DataError if a sample is neither a mapping nor a tuple as long as `fields`.
        """
        batch = default_collate([self._named(sample) for sample in samples])
        narrow: Batch = tree_map(_narrow, batch)
        return narrow

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
        """The sum `loss` of `measure`. Raises DataError if there is none."""
        return Loss(self._pairs(model, batch)["val_loss"][0], {})

    def metric(self) -> CustomMetric:
        """The means of all that `measure` returns."""
        return CustomMetric(self._pairs)

    def _measured(self, model: Module, batch: Batch) -> Measured:
        value: object = self.measure(model, batch)
        if isinstance(value, Mapping) and "loss" in value:
            return value
        names = ", ".join(map(str, value)) if isinstance(value, Mapping) else ""
        raise DataError(
            f"{type(self).__name__}.measure returns {names or type(value).__name__}, but no 'loss'",
            where=self._place("measure"),
            allowed="a mapping with 'loss' and any other metrics",
        )

    def _pairs(self, model: Module, batch: Batch) -> Pairs:
        measured, num_units = self._measured(model, batch), self.num_units(batch)
        return {
            f"val_{name}": value if isinstance(value, tuple) else (value, num_units)
            for name, value in measured.items()
        }

    def blocks(self, model: Module) -> list[Module]:
        """The children with parameters, in order; containers are replaced by their members."""
        parts: list[Module] = []
        for child in model.children():
            parts += self.blocks(child) if isinstance(child, _CONTAINERS) else [child]
        return [block for block in parts if any(True for _ in block.parameters())]

    def preview(self, model: Module) -> str | None:
        """None: no preview."""
        return None

    def flops_per_sample(self, model: Module) -> float | None:
        """None: unknown."""
        return None

    def facts(self) -> Mapping[str, Any]:
        """The number of samples of each split."""
        return {"samples": {split: len(samples) for split, samples in self._splits.items()}}


class CustomMetric:
    """Means of all that a custom task measures: sums divided by counts."""

    def __init__(self, measure: Callable[[Module, Batch], Pairs]) -> None:
        """`measure` gives by name what a batch adds to the sum and to the count of a metric."""
        self._measure = measure
        self.names: tuple[str, ...] = ()

    @torch.no_grad()
    def update(self, model: Module, batch: Batch) -> Tensor:
        """Sum and count of each metric, float64, in the order of the first batch.

        Raises ValueError if the names differ from those of an earlier batch.
        """
        pairs = self._measure(model, batch)
        self.names = self.names or tuple(pairs)
        if self.names != tuple(pairs):
            before, now = (", ".join(names) for names in (self.names, pairs))
            raise ValueError(f"measure returned {before} for one batch and {now} for another")
        values = [value for pair in pairs.values() for value in pair]
        device = next((x.device for x in values if isinstance(x, Tensor)), None)
        if device is not None and device.type == "mps":  # has no float64
            device = torch.device("cpu")
        return torch.stack([torch.as_tensor(x).detach().to(device=device).to(torch.float64) for x in values])

    def result(self, counts: Tensor) -> dict[str, float | None]:
        """The means by name, None where the count is 0; at least one batch was measured before."""
        pairs = zip(counts[0::2].tolist(), counts[1::2].tolist(), strict=True)
        means = (total / count if count else None for total, count in pairs)
        return dict(zip(self.names, means, strict=True))


class _FixedSamples:
    """A sequence as a split: the samples are the same in every epoch."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int, draws: Draws) -> Any:
        return self._samples[index]


def _narrow(value: Any) -> Any:
    is_wide = isinstance(value, Tensor) and value.dtype == torch.float64
    return value.to(torch.get_default_dtype()) if is_wide else value


def _length(value: Any) -> int:
    """Length of the first axis of the first tensor; texts are a list with one entry per sample."""
    if isinstance(value, Tensor):
        return value.shape[0]
    inner = list(value.values()) if isinstance(value, Mapping) else value
    return len(inner) if isinstance(inner[0], str | bytes) else _length(inner[0])
