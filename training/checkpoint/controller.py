"""The checkpoints of a run: written, waited for, told of, and what a failed one means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.checkpoint.manifest import CheckpointError, step_of
from training.checkpoint.restore import restore

if TYPE_CHECKING:
    from engines.base import Engine, State
    from training.callbacks.callback_list import CallbackList
    from training.checkpoint.manifest import Score
    from training.checkpoint.settings import Save
    from training.checkpoint.writer import CheckpointWriter
    from training.optim.updater import Updater


class CheckpointController:
    """Hands states to the saver, and its news to the audience.

    Collective: write, settle, load_best.
    """

    def __init__(
        self, settings: Save, saver: CheckpointWriter, audience: CallbackList, first_step: int
    ):
        self._saver = saver
        self._audience = audience
        self._in_background = settings.async_
        self._is_required = settings.required
        self._loads_best = settings.load_best and settings.keep_best > 0
        self.last = settings.last
        """Save when the run ends."""
        self.on_signal = settings.on_signal
        """Save when a signal ends the run."""
        self.at = first_step
        """The step that was written last, or that the run began with: its state is on disk."""

    @property
    def has_news(self) -> bool:
        """A write in the background has come to its end, or failed; of this rank alone."""
        return self._saver.is_settled

    def write(
        self,
        step: int,
        state: State,
        facts: Mapping[str, Any],
        periodic: bool,
        score: Score | None,
    ) -> None:
        """Save `state` as that of `step`. Raises CheckpointError where a run needs every save."""
        self.settle()
        self.at = step
        try:
            self._saver.save(step, state, facts, periodic, score)
        except CheckpointError as fault:
            self._failed(fault)
        if not self._in_background:
            self.settle()

    def settle(self) -> None:
        """Wait until what was written is on disk. Raises CheckpointError as `write` does."""
        try:
            folder = self._saver.wait()
        except CheckpointError as fault:
            self._failed(fault)
        else:
            if folder is not None:
                self._audience.saved(folder, _step(folder))

    def load_best(
        self, best: Mapping[str, Any] | None, step: int, engine: Engine, updater: Updater
    ) -> None:
        """End a run of `step` steps with the weights of the `best` evaluation. Reads disk.

        Nothing is done where the settings do not want it, or the weights are those already. Where
        the checkpoint is not in this folder, as in one that a run goes on in, that is told.
        """
        if not self._loads_best or best is None or best["step"] == step:
            return
        self.settle()
        try:
            checkpoint = self._saver.checkpoint(best["step"])
        except CheckpointError as fault:
            text = f"the run ends with its last weights; the best, of step {best['step']}: {fault}"
            self._audience.event("warning", {"text": text})
            return
        restore(checkpoint, engine, slots=False)
        updater.load_average(checkpoint)
        self._audience.event("best_loaded", dict(best))

    def abandon(self) -> None:
        """The run has failed: let a write come to its end, where nothing else waits for it."""
        self._saver.abandon()

    def _failed(self, fault: CheckpointError) -> None:
        if self._is_required:
            raise fault
        self._audience.event("warning", {"text": f"{fault}; save.required is off: training on"})


def _step(folder: Path) -> int:
    step = step_of(folder.name)
    assert step is not None, folder
    return step
