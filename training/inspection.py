"""Facts about a model and its first batch, and previews of what the model predicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from models.base import HasPredictions
from training.trackers.predictions import predict_on_all_ranks

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Batch, Task
    from training.callbacks.callback_list import CallbackList
    from training.optim.updater import Updater
    from training.settings import Settings


_MOST_NAMES = 8
_DIGEST_LETTERS = 16
Event = tuple[str, dict[str, object]]
"""Kind and facts, as hooks are told."""


def untrained(engine: Engine) -> Iterator[Event]:
    """Events that name parameters which the first update left as they were. Collective."""
    state = engine.state()
    held = {name for group in state.groups for name in group["names"]}
    frozen = [name for name in state.shapes if name not in held]
    if frozen:
        yield "frozen", {"count": len(frozen), "names": frozen}
    idle = list(engine.without_gradient)
    if idle:
        more = f" and {len(idle) - _MOST_NAMES} more" if len(idle) > _MOST_NAMES else ""
        text = f"no gradient reached {', '.join(idle[:_MOST_NAMES])}{more} in the first step"
        yield "warning", {"text": text, "names": idle}


@dataclass(frozen=True)
class Architecture:
    """What a model is made of, whatever its weights are."""

    parameters: int
    """How many weights there are."""
    digest: str
    """Of the names and shapes of all parameters: equal for models that take the same weights."""


def architecture(model: Module) -> Architecture:
    """The architecture of `model`, before an engine has placed it."""
    found = [(name, list(one.shape), one.numel()) for name, one in model.named_parameters()]
    told = json.dumps([(name, shape) for name, shape, _ in found]).encode()
    digest = hashlib.sha256(told).hexdigest()[:_DIGEST_LETTERS]
    return Architecture(sum(count for _, _, count in found), digest)


def shapes(batch: Batch) -> dict[str, object]:
    """Axes and dtype of each tensor of a batch, by its name."""
    return {name: _shape(value) for name, value in batch.items()}


def _shape(value: Any) -> object:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items()}
    return type(value).__name__


class Preview:
    """Shows what a person asked for. Collective: all methods."""

    def __init__(self, settings: Settings, audience: CallbackList) -> None:
        self._has_text = settings.train.preview
        self._has_predictions = bool(settings.track) and settings.tracking.samples
        self._audience = audience
        self.shown_at: int | None = None
        """The step at which predictions were asked for last."""

    def start(self, task: Task, module: Module, engine: Engine, updater: Updater) -> None:
        """What is to be shown from now on; the weights are those that `updater` averages."""
        self._task, self._module, self._world = task, module, engine.world
        self._averaged = partial(updater.averaged, engine)

    def text(self, when: str) -> None:
        """Tell what the model gives now, where the task has a way to tell it."""
        if not self._has_text:
            return
        self._module.eval()
        with torch.no_grad(), self._averaged():
            text = self._task.preview(self._module)
        self._module.train()
        if text is not None:
            self._audience.event("preview", {"when": when, "text": text})

    def predictions(self, step: int) -> None:
        """Tell what the model makes of samples, once a step, where trackers show it.

        What goes wrong there is a warning, and the end of the showing: the run goes on.
        """
        task = self._task
        if (
            not self._has_predictions
            or not isinstance(task, HasPredictions)
            or self.shown_at == step
        ):
            return
        self.shown_at = step
        with torch.no_grad(), self._averaged():
            found, fault = predict_on_all_ranks(task, self._module, self._world)
        if found is not None:
            self._audience.predicted(found, step)
        else:
            self._has_predictions = False
            text = f"predictions are not shown any more: {fault}"
            self._audience.event("warning", {"text": text})
