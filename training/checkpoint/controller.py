"""The checkpoint controller of a run: save, wait, report, and load the best at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gearshift.training.callbacks.base import Facts
from gearshift.training.checkpoint.manifest import CheckpointError

if TYPE_CHECKING:
    from gearshift.engines.base import Engine
    from gearshift.training.callbacks.base import CallbackList
    from gearshift.training.checkpoint.reader import Checkpoint
    from gearshift.training.checkpoint.writer import CheckpointWriter
    from gearshift.training.settings import Save


class CheckpointController:
    """Decides when a write is awaited, reports it, and applies `save.required`.

    Collective: save, wait, load_best.
    """

    def __init__(
        self,
        settings: Save,
        writer: CheckpointWriter,
        callbacks: CallbackList,
        first_step: int,
    ):
        self.writer = writer
        self._callbacks = callbacks
        self._waited_s = 0.0
        self._in_background = settings.async_
        self._is_required = settings.required
        self._loads_best = settings.load_best and settings.keep_best > 0
        self.saves_last = settings.last
        """Save when the run ends."""
        self.saves_on_signal = settings.on_signal
        """Save when a signal or a limit ends the run."""
        self.saved_step = first_step
        """The step of the newest checkpoint, or the first step: its state is on disk."""

    def save(self, step: int, *state: Any) -> None:
        """Save the `state` of `step`, as CheckpointWriter.save. Raises as `wait`."""
        self.wait()
        self.saved_step = step
        began = time.perf_counter()
        self._attempt(lambda: self.writer.save(step, *state))
        self._waited_s = time.perf_counter() - began
        if not self._in_background:
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on disk, and report it.

        Raises CheckpointError if it failed and `save.required` is on.
        """
        began = time.perf_counter()
        folder = self._attempt(self.writer.wait)
        if folder is not None:
            waited_s = self._waited_s + time.perf_counter() - began
            self._callbacks.saved(folder, self.saved_step, waited_s)

    def load_best(
        self,
        best: Facts | None,
        step: int,
        engine: Engine,
        load_average: Callable[[Checkpoint], None],
    ) -> int:
        """Load the weights of the `best` evaluation at the end of a run of `step` steps.

        The step of the weights: that of the best, or `step` if `save.load_best` is off. A missing
        checkpoint is a warning. Touches disk.
        """
        if not self._loads_best or best is None or best["step"] == step:
            return step
        self.wait()
        try:
            checkpoint = self.writer.checkpoint(best["step"])
        except CheckpointError as error:
            text = f"kept the last weights, not the best: {error}"
            self._callbacks.event("warning", {"text": text})
            return step
        from gearshift.training.checkpoint.restore import restore

        restore(checkpoint, engine, slots=False)
        load_average(checkpoint)
        self._callbacks.event("best_loaded", dict(best))
        return int(best["step"])

    def _attempt(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except CheckpointError as error:
            if self._is_required:
                raise
            text = f"{error}; training continues because save.required is off"
            self._callbacks.event("warning", {"text": text})
            return None
