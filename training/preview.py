"""What the model makes of samples now, shown to people: as a text, and by trackers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from models.base import Predicts
from training.trackers.predictions import predict_on_all_ranks

if TYPE_CHECKING:
    from torch.nn import Module

    from engines.base import Engine
    from models.base import Task
    from training.callbacks.callback_list import Audience
    from training.optim.updater import Updater
    from training.settings import Settings


class Preview:
    """Shows what a person asked for. Collective: all methods."""

    def __init__(self, settings: Settings, audience: Audience) -> None:
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
        if not self._has_predictions or not isinstance(task, Predicts) or self.shown_at == step:
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
