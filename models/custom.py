"""The base class of custom tasks: all of `models.base.Task` except three methods."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate

from gearshift.models.base import Batch, DataError, Draws, Facts, Split, SplitName
from gearshift.models.catalog import Stage
from gearshift.models.common.family import FamilyTask, Measured, loss_of
from gearshift.models.common.split import SPLITS

_SAME = 1e-3
"""Relative difference of two losses that count as equal; twice the samples double a sum."""


class CustomTask(FamilyTask, ABC):
    """A custom task: your class builds the model, returns the samples and measures a batch.

    Its settings are the nested classes `Model` and `Data`, pydantic models whose fields have
    defaults: `--set model.width=64` sets `self.model_settings.width`. Any other method can be
    overridden; models/base.py: Task documents what the training loop expects of it.
    """

    fields: Sequence[str] = ("input", "target")
    """Names of the parts of a sample in a batch, where a sample is a tuple."""
    defaults: Mapping[str, Any] = {}
    """Settings of any section, nested or dotted: `{"optim": {"lr": 1e-3}}`."""
    sizes: Mapping[str, Facts] = {}
    """The settings that each size changes, from small to large; the first is the default."""
    stages: Sequence[Stage] = ()
    """What mode `staged` trains, in this order, each in its own run."""
    stage_settings: Mapping[str, Facts] = {}
    """The settings that each stage changes: what it builds, trains and freezes."""

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
        """As FamilyTask.measure: `loss` and any other metrics, summed over the batch."""

    def setup(self) -> None:
        """Read the samples of each split.

        Raises DataError if a split is empty or has no length and no index.
        """
        for split in SPLITS:
            samples: Any = self.samples(split)
            is_empty = samples is None or (hasattr(samples, "__len__") and not len(samples))
            if split == "test" and is_empty:
                continue
            draws = hasattr(samples, "sample")
            try:
                if not len(samples) or not (draws or samples[0] is not None):
                    raise ValueError("there is no sample")
            except (TypeError, KeyError, ValueError) as error:
                raise DataError(
                    f"{type(self).__name__}.samples({split!r}): {type(error).__name__}: {error}",
                    where=self._place("samples"),
                    allowed="a list, a torch Dataset or another sequence, not a generator or a "
                    "table; at least one sample each for train and val",
                ) from None
            self.splits[split] = samples if draws else _FixedSamples(samples)

    def check_measures(self, model: Module, once: Batch, twice: Batch) -> None:
        """Check what `measure` returns: sums as scalars, and the metric of the goal.

        Raises DataError with the file and line of `measure`.
        """
        name = type(self).__name__
        sums = self.measure(model, once)
        sums_of_twice = self.measure(model, twice)

        error = partial(DataError, where=self._place("measure"))
        if not isinstance(sums, Mapping) or "loss" not in sums:
            raise error(
                f"{name}.measure returns no mapping with 'loss'",
                allowed="'loss' and any other metrics",
            )
        for key, value in sums.items():
            parts = value if isinstance(value, tuple) else (value,)
            if not all(map(_is_scalar, parts)):
                raise error(
                    f"{name}.measure returns {key!r} that is not a scalar",
                    allowed="a scalar tensor, the sum over the samples; or a pair of a sum and a "
                    "count",
                )
        names = [f"val_{key}" for key in sums]
        goal = self.goal.metric
        if goal not in names and type(self).metric is FamilyTask.metric:
            raise error(
                f"the goal of {name} is {goal!r}, which measure does not return",
                allowed=", ".join(names),
                did_you_mean="".join(get_close_matches(goal, names, n=1)),
            )

        first = float(loss_of(sums))
        second = float(loss_of(sums_of_twice))
        has_more_units = self.num_units(twice) != self.num_units(once)
        is_equal = abs(second - first) <= _SAME * abs(first)
        if has_more_units and is_equal and abs(first) >= _SAME:
            raise error(
                f"the loss of {name} does not grow with the batch: twice the samples give "
                f"{second:.6g} instead of {2 * first:.6g}. A mean makes training depend on "
                "micro-batches and processes",
                allowed="the sum over the samples of the batch",
                hint='in measure, use reduction="sum", or multiply the mean by the samples',
            )

    def _place(self, method: str) -> str:
        """File and line of a method of the class."""
        function = getattr(type(self), method)
        try:
            return f"{inspect.getsourcefile(function)}:{inspect.getsourcelines(function)[1]}"
        except (OSError, TypeError):  # typed into a session of Python
            return f"{type(self).__name__}.{method}"

    def collate(self, samples: Sequence[Any]) -> Batch:
        """A mapping of names to the collated parts of all samples (torch's default_collate).

        Numbers in float64, the default of numpy and of Python, become those of torch's default.
        Raises DataError if a sample is neither a mapping nor a tuple as long as `fields`.
        """
        batch = default_collate([self._named(sample) for sample in samples])
        narrow: Batch = tree_map(_narrow, batch)
        return narrow

    def _named(self, sample: Any) -> Facts:
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


class _FixedSamples:
    """A sequence as a split: the samples are the same in every epoch."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int, draws: Draws) -> Any:
        return self._samples[index]


def _is_scalar(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0
    return isinstance(value, int | float)


def _narrow(value: Any) -> Any:
    is_wide = isinstance(value, Tensor) and value.dtype == torch.float64
    if is_wide:
        return value.to(torch.get_default_dtype())
    return value


def _length(value: Any) -> int:
    """Length of the first axis of the first tensor; texts are a list with one entry per sample."""
    if isinstance(value, Tensor):
        return value.shape[0]
    inner = list(value.values()) if isinstance(value, Mapping) else value
    if isinstance(inner[0], str | bytes):
        return len(inner)
    return _length(inner[0])
