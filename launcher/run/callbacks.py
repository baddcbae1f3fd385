"""Who is told of a run: its files, the person at the console, signals and the machine's limits."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from engines.base import World
from launcher.base import environment
from launcher.base.diagnostics import PROGRAM
from launcher.base.redaction import redact, redact_variables
from launcher.config.schema import model_name
from launcher.run import signals
from launcher.run.experience_data import ExperienceData
from launcher.run.job_spec import Job
from launcher.run_folder import generations
from training.callbacks.base import Callback, RunInfo
from training.callbacks.preemption import Deadline, Preemption, Tell
from training.inspection import Architecture
from training.logging.console_reporter import ConsoleReporter
from training.logging.events import EventsWriter
from training.logging.metrics import MetricsWriter, ResourceUsage
from training.logging.outputs import ConsoleOutput, LogFileOutput, PlainOutput
from training.logging.result import JobSummary, ResultWriter, single_process
from training.logging.terminal import TerminalOutput, can_redraw
from training.resources.limits import LimitEnforcer
from training.resources.memory import CacheClearing
from training.resources.monitor import RESOURCES, ResourceMonitor, ResourceReader
from training.storage import Storage, StorageError
from training.trackers.base import TrackedRun, build_trackers
from training.train_plan import TrainPlan


@dataclass(frozen=True)
class Listeners:
    """What the hooks of a rank are told of its run."""

    job: Job
    folder: Path
    world: World
    door: Path | None = None
    """What its files are written through; see training/storage.py."""

    @property
    def storage(self) -> Storage:
        """The run folder, for files."""
        return Storage(self.folder, self.door)

    def callbacks(self, settings: Any, about: RunInfo) -> list[Callback]:
        """All hooks of this rank; files and the console are rank 0's."""
        limits = settings.limits
        reader = ResourceReader(self.world.device, self.folder)
        usage = ResourceUsage({name: getattr(limits, name) for name in RESOURCES})
        monitor = ResourceMonitor(reader.read, limits.check_every_s, usage)
        events = EventsWriter(self.storage, self.world.rank)
        found: list[Callback] = [events]

        def tell(kind: str, facts: Mapping[str, object]) -> None:
            """What this rank alone saw: on rank 0 the console and the log are told, too."""
            if self.world.rank != 0:
                events.rank_event(kind, facts)
                return
            for callback in found:
                callback.event(kind, facts)

        if self.world.rank == 0:
            found += [
                MetricsWriter(self.storage, usage),
                ConsoleReporter(about, self._voices(), usage=usage),
                ResultWriter(about, self.storage, usage, self._account),
            ]
        found += self._trackers(settings, about, tell)
        found += [
            Preemption(tell, settings.save.on_signal),
            _EarlyNoMore(),  # behind the one that listens from now on
            LimitEnforcer(limits, monitor, tell),
            CacheClearing(settings.memory.empty_cache_every, self.world.device),
        ]
        if self.job.experience is not None and self.job.experience.deadline is not None:
            found.append(Deadline(self.job.experience.deadline, tell))
        return found

    def about(self, material: ExperienceData, built: Architecture, samples: int) -> RunInfo:
        """The names and numbers of the run that do not change."""
        settings = self.job.resolved.settings
        facts, notes = material.tasks[-1].facts(), [*self.job.resolved.notes, *material.notes]
        if self.job.experience is not None and "source" in facts:
            facts = {**facts, "source": settings.data.path}  # and not the links to its files
        return RunInfo(
            model=model_name(settings.model),
            mode=settings.mode,
            engine=settings.engine.name,
            device=device_name(self.world.device),
            precision=settings.precision,
            parameters=built.parameters,
            architecture=built.digest,
            samples=samples,
            folder=self.folder,
            data=facts,
            notes=notes,
            stage=settings.stages[0] if settings.stages else None,
        )

    def _trackers(self, settings: Any, about: RunInfo, tell: Tell) -> list[Callback]:
        """Dashboards are rank 0's, and no business of a replay."""
        typed, tracking, resume = settings.track, settings.tracking, self.job.resume
        if self.world.rank != 0 or (resume is not None and resume.until is not None):
            return []
        values = self.job.resolved.values
        origins = {key: f"{one.origin.layer}: {one.origin.place}" for key, one in values.items()}
        plain = {key: value.value for key, value in values.items()}
        tracked = TrackedRun(
            folder=self.folder,
            settings=_without_secrets(plain),
            origins=_without_secrets(origins),
            about=about,
            tracking=tracking,
            emit=tell,
            report=self._say,
            went_back=resume is not None and resume.goes_back(self.folder),
            sync_command=f"{PROGRAM} track {shlex.quote(str(self.folder))}",
        )
        return build_trackers(typed, tracked)

    def _say(self, kind: Literal["notice", "warning"], text: str) -> None:
        """Say something after the voices of the run were closed."""
        if self.job.console:
            PlainOutput(sys.stdout).write(kind, text)
        with suppress(StorageError):  # a full disk, or a successor: no fault of this run's end
            log = LogFileOutput(self.storage)
            log.write(kind, text)
            log.close()

    @property
    def _account(self) -> JobSummary:
        if self.job.generation is None:
            return single_process
        return partial(generations.account, self.folder, self.job.generation)

    def _voices(self) -> list[ConsoleOutput]:
        voices: list[ConsoleOutput] = [LogFileOutput(self.storage)]
        if self.job.console:
            redraws = can_redraw(sys.stdout, environment.variables().get("TERM"))
            voices.append(TerminalOutput(sys.stdout) if redraws else PlainOutput(sys.stdout))
        return voices


class _EarlyNoMore(Callback):
    """Ends the time before training, in which a signal meant that nothing was done yet."""

    def __init__(self) -> None:
        self._early = signals.current()

    def start(self, train_plan: TrainPlan) -> None:
        if self._early is not None:
            self._early.over()


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as they may leave this machine."""
    told: dict[str, Any] = json.loads(
        redact_variables(redact(json.dumps(values)), environment.variables())
    )
    return told


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
