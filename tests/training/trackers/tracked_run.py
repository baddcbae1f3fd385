"""Generations of a run as trackers see them, without training: growing files and callbacks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.training import facts
from tests.waiting import until
from training.logging import metrics
from training.logging.metrics import MetricsWriter
from training.settings import Tracking
from training.storage import Storage
from training.trackers.base import TrackedRun, build_trackers


@dataclass
class Generation:
    """One generation of the run in `folder`; lines for the user are in `printed`."""

    folder: Path
    names: Sequence[str] = ("wandb:try",)
    tracking: Mapping[str, Any] = field(default_factory=dict)
    went_back: bool = False
    printed: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, first_step=0):
        """Start the callbacks after `first_step` updates; a resume removes later lines."""
        self.folder.mkdir(exist_ok=True)
        metrics.truncate(Storage(self.folder), first_step, first_step)
        self.metrics = MetricsWriter(Storage(self.folder))
        self.callbacks = build_trackers(self.names, self._tracked_run())
        for callback in (self.metrics, *self.callbacks):
            callback.start(facts.train_plan(first_step=first_step))
        return self

    def log(self, *steps, **changes):
        """Log each of `steps`, with the loss 1/step."""
        for step in steps:
            line = facts.logged(step, **{"loss": 1 / step, **changes})
            for callback in (self.metrics, *self.callbacks):
                callback.logged(line)
        return self

    def evaluate(self, step):
        """Evaluate after `step`."""
        for callback in (self.metrics, *self.callbacks):
            callback.evaluated(facts.evaluation(step))
        return self

    def end(self, **changes):
        """End, all steps taken."""
        for callback in (self.metrics, *self.callbacks):
            callback.end(facts.outcome(**changes))
        return self

    def stop(self):
        """End as after a signal, with exit code 75."""
        return self.end(status="stopped", exit_code=75, reason="SIGTERM")

    def die(self):
        """End as after kill -9: pipes are closed without an end message."""
        self.metrics.end(facts.outcome())
        for callback in self.callbacks:
            process = callback._process._process
            os.close(os.dup(process.stdin.fileno()))
            callback._process._outgoing.put(None)
            process.wait()

    def until_open(self):
        """Wait until the tracker has reported its address; logs nothing."""

        def is_reported():
            for callback in self.callbacks:
                callback._check_process()
            return bool(self.printed)

        until(is_reported)
        return self

    @property
    def warnings(self):
        return [text for kind, text in self.printed if kind == "warning"]

    def _tracked_run(self):
        def emit(kind, facts):
            self.printed.append((kind, str(facts["text"])))

        return TrackedRun(
            folder=self.folder,
            settings={"optim.lr": 1e-3, "mode": "lite"},
            origins={"optim.lr": "config: mine.yaml:3", "mode": "command line: --lite"},
            about=facts.about(self.folder),
            tracking=Tracking(**self.tracking),
            emit=emit,
            report=lambda kind, text: self.printed.append((kind, text)),
            sync_command=f"send {self.folder}",
            went_back=self.went_back,
        )
