"""Generations of a run as trackers see them, without training: growing files and a process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gearshift.launcher.run.callbacks import SamplesWriter
from gearshift.training.callbacks.base import CallbackList
from gearshift.training.logging import resumed_lines
from gearshift.training.logging.metrics import EventsWriter, MetricsWriter, ResultWriter
from gearshift.training.settings import Tracking
from gearshift.training.storage import Storage
from gearshift.training.trackers.follow import Run
from gearshift.training.trackers.process import Trackers
from tests.training import facts
from tests.waiting import until


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
        storage = Storage(self.folder)
        resumed_lines.truncate(storage, first_step, first_step)
        events, about = EventsWriter(storage), facts.about(self.folder)
        tracking = Tracking(**{"wait_s": 120, **self.tracking})
        run = Run(
            folder=self.folder,
            track=self.names,
            settings={"optim.lr": 1e-3, "mode": "lite", "train.debug": False},
            origins={"optim.lr": "config: mine.yaml:3", "mode": "command line: --lite"},
            facts={"model": "language:tiny", "mode": "lite", "engine": "ddp"},
            went_back=self.went_back,
            checkpoints=tracking.checkpoints,
            command=f"send {self.folder}",
        )
        self.trackers = Trackers(
            run,
            tracking.wait_s,
            emit=lambda kind, facts: self.printed.append((kind, str(facts["text"]))),
            report=lambda kind, label, text: self.printed.append((kind, text)),
        )
        writers = MetricsWriter(storage), ResultWriter(about, storage)
        samples = SamplesWriter(storage, events.event)
        self.callbacks = CallbackList([events, *writers, samples, self.trackers])
        self.callbacks.start(facts.train_plan(first_step=first_step))
        return self

    @property
    def process(self):
        """The process of the trackers."""
        return self.trackers._process

    def log(self, *steps, **changes):
        """Log each of `steps`, with the loss 1/step."""
        for step in steps:
            self.callbacks.step(facts.step(step))
            self.callbacks.logged(facts.logged(step, **{"loss": 1 / step, **changes}))
        return self

    def evaluate(self, step):
        """Evaluate after `step`."""
        self.callbacks.evaluated(facts.evaluation(step))
        return self

    def save(self, step):
        """A checkpoint of `step`, the best so far."""
        folder = self.folder / "checkpoints" / f"step-{step:08}"
        folder.mkdir(parents=True)
        for name in ("model.safetensors", "manifest.json", "rank-00000.safetensors"):
            (folder / name).write_text(name)
        (self.folder / "best").symlink_to(folder)
        self.callbacks.saved(folder, step, 0.5)
        return self

    def end(self, **changes):
        """End, all steps taken."""
        self.callbacks.end(facts.outcome(**changes))
        return self

    def stop(self):
        """End as after a signal, with exit code 75."""
        return self.end(status="stopped", exit_code=75, reason="SIGTERM")

    def die(self):
        """End as after kill -9: the pipe is closed."""
        self.process.stdin.close()
        self.process.wait()

    def until_open(self):
        """Wait until the tracker has reported its address; logs nothing."""

        def is_reported():
            self.trackers.logged(facts.logged(1))
            return bool(self.printed)

        until(is_reported)
        return self

    @property
    def warnings(self):
        return [text for kind, text in self.printed if kind == "warning"]
