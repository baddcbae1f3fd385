"""A run as trackers see it, without training: files that grow, and hooks that are told."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.training import facts
from training.logging import metrics
from training.logging.metrics import MetricsWriter
from training.trackers.base import TrackedRun, build_trackers
from training.trackers.settings import Tracking


@dataclass
class Course:
    """One life of the run in `folder`; what the person is told stands in `said`."""

    folder: Path
    typed: Sequence[str] = ("wandb:try",)
    tracking: Mapping[str, Any] = field(default_factory=dict)
    went_back: bool = False
    said: list[tuple[str, str]] = field(default_factory=list)

    def begin(self, first_step: int = 0) -> Course:
        """Start the hooks, after `first_step` updates; later lines are cut as a resume does."""
        self.folder.mkdir(exist_ok=True)
        metrics.cut(self.folder, first_step, first_step)
        self.metrics = MetricsWriter(self.folder)
        self.callbacks = build_trackers(self.typed, self._tracked())
        for callback in (self.metrics, *self.callbacks):
            callback.start(facts.train_plan(first_step=first_step))
        return self

    def log(self, *steps: int, **changes: Any) -> Course:
        """Log each of `steps`, with the loss 1/step."""
        for step in steps:
            line = facts.logged(step, **{"loss": 1 / step, **changes})
            for callback in (self.metrics, *self.callbacks):
                callback.logged(line)
        return self

    def evaluate(self, step: int) -> Course:
        """Evaluate after `step`."""
        for callback in (self.metrics, *self.callbacks):
            callback.evaluated(facts.evaluation(step))
        return self

    def end(self, **changes: Any) -> Course:
        """End, all steps taken."""
        for callback in (self.metrics, *self.callbacks):
            callback.end(facts.outcome(**changes))
        return self

    def stop(self) -> Course:
        """End as a signal ends a run, to be run again."""
        return self.end(status="stopped", exit_code=75, reason="SIGTERM")

    def die(self) -> None:
        """End as kill -9 ends a run: its pipes are closed, and nobody says goodbye."""
        self.metrics.end(facts.outcome())
        for callback in self.callbacks:
            process = callback._companion._process
            os.close(os.dup(process.stdin.fileno()))
            callback._companion._to_send.put(None)
            process.wait(60)

    def until_open(self) -> Course:
        """Wait until the tracker has told where it is; logs nothing."""
        until = time.monotonic() + 60
        while not self.said and time.monotonic() < until:
            for callback in self.callbacks:
                callback._hear()
            time.sleep(0.02)
        return self

    @property
    def warnings(self) -> list[str]:
        return [text for kind, text in self.said if kind == "warning"]

    def _tracked(self) -> TrackedRun:
        def tell(kind: str, told: Mapping[str, object]) -> None:
            self.said.append((kind, str(told["text"])))

        return TrackedRun(
            folder=self.folder,
            settings={"optim.lr": 1e-3, "mode": "lite"},
            origins={"optim.lr": "config: mine.yaml:3", "mode": "command line: --lite"},
            about=facts.about(self.folder),
            tracking=Tracking(**self.tracking),
            tell=tell,
            say=lambda kind, text: self.said.append((kind, text)),
            send=f"send {self.folder}",
            went_back=self.went_back,
        )
