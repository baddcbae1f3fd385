"""Facts about a model and its first batch, and previews of what the model predicts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module

from gearshift.models.base import HasPredictions
from gearshift.training.logging.encoding import caught, counted

if TYPE_CHECKING:
    from gearshift.engines.base import Engine
    from gearshift.models.base import Predictions, Task
    from gearshift.training.agreement import Interruption
    from gearshift.training.callbacks.base import CallbackList
    from gearshift.training.optim.updater import Updater
    from gearshift.training.settings import TrainingSettings

_MAX_NAMES = 8
_DIGEST_LETTERS = 16
Event = tuple[str, dict[str, object]]
"""Kind and facts of an event."""


def untrained(engine: Engine) -> Iterator[Event]:
    """Events that name the parameters without an optimizer or a gradient. Collective."""
    state = engine.state()
    trained = {name for group in state.groups for name in group["names"]}
    frozen = []
    for name, shape in state.shapes.items():
        if name not in trained and 0 not in shape:
            frozen.append(name)
    if frozen:
        yield "frozen", {"count": len(frozen), "names": frozen}
    idle = list(engine.without_gradient)
    if idle:
        names = ", ".join(idle[:_MAX_NAMES])
        parameters = counted(len(idle), "parameter")
        text = f"no gradient in the first step of {parameters}: {names}"
        yield "warning", {"text": text, "names": idle}


@dataclass(frozen=True)
class Architecture:
    parameters: int
    """Number of weights, also of those in 4 bits."""
    trained: int
    """How many of them are not frozen."""
    digest: str
    """Of the names and shapes of all parameters: equal for models with compatible weights."""


def architecture(model: Module) -> Architecture:
    """The architecture of `model`, before an engine has placed it."""
    shapes = []
    count = quantized_elements(model)
    trained = 0
    for name, parameter in model.named_parameters():
        shapes.append((name, list(parameter.shape)))
        count += parameter.numel()
        if parameter.requires_grad:
            trained += parameter.numel()
    digest = hashlib.sha256(json.dumps(shapes).encode()).hexdigest()
    return Architecture(count, trained, digest[:_DIGEST_LETTERS])


def quantized_elements(model: Module) -> int:
    """Number of weights in 4 bits, which are no parameters."""
    return sum(getattr(module, "quantized_elements", 0) for module in model.modules())


def shapes(value: Any) -> Any:
    """Shape and dtype of each tensor of a batch, by name; of another value its type."""
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return {name: shapes(inner) for name, inner in value.items()}
    return type(value).__name__


def _not_compiled() -> AbstractContextManager[None]:
    """Run compiled blocks as they are: generated text has another length at each token."""
    return torch.compiler.set_stance("force_eager")


def preview_text(task: Task, module: Module, interruption: Interruption) -> str | None:
    """A sample of the present outputs; None: `task` has none. Collective. Raises Interrupted.

    Leaves `module` in training mode.
    """
    module.eval()
    try:
        with torch.no_grad(), _not_compiled(), interruption.watching(module):
            return task.preview(module)
    finally:
        module.train()


class Preview:
    """Shows samples of the output: before and after training, and in trackers. Collective.

    All methods but `start` raise Interrupted, and have shown nothing then.
    """

    def __init__(self, settings: TrainingSettings, callbacks: CallbackList) -> None:
        self._is_on = settings.train.preview
        self._is_tracked = bool(settings.track) and settings.tracking.samples
        self._callbacks = callbacks
        self._can_predict = True
        self.shown_at: int | None = None
        """The step of the last predictions in trackers."""

    def start(
        self,
        task: Task,
        module: Module,
        engine: Engine,
        updater: Updater,
        interruption: Interruption,
    ) -> None:
        """Set what is shown; the weights are those that `updater` averages."""
        self._task = task
        self._module = module
        self._interruption = interruption
        self._averaged = partial(updater.averaged, engine)

    def samples(self, when: str, step: int) -> None:
        """Report samples with the weights of `step`: a text for the console, and predictions."""
        text, predictions = self.make()
        if text is not None:
            self._callbacks.event("preview", {"when": when, "text": text})
        if predictions is not None:
            self._callbacks.sampled(predictions, when, step)

    def make(self) -> tuple[str | None, Predictions | None]:
        """What `samples` reports; nothing if they are off."""
        if not self._is_on:
            return None, None
        with self._averaged():
            text = preview_text(self._task, self._module, self._interruption)
        return text, self._predict()

    def predictions(self, step: int) -> None:
        if not self._is_tracked or self.shown_at == step:
            return
        predictions = self._predict()
        self.shown_at = step
        if predictions is not None:
            self._callbacks.predicted(predictions, step)

    def _predict(self) -> Predictions | None:
        """The predictions with the present weights; None: the task makes none.

        An error is a warning and ends the predictions; training continues.
        """
        task = self._task
        if not self._can_predict or not isinstance(task, HasPredictions):
            return None
        predictions = None
        failures: list[str] = []
        self._module.eval()
        try:
            with (
                torch.no_grad(),
                self._averaged(),
                _not_compiled(),
                self._interruption.watching(self._module, failures),
                caught(failures.append),
            ):
                predictions = task.predictions(self._module)
        finally:
            self._module.train()
        if failures or predictions is None:
            self._can_predict = False
            self._callbacks.event("warning", {"text": f"predictions are disabled: {failures[0]}"})
            return None
        return predictions
