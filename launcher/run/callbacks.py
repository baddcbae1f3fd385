"""The callbacks of a rank: writers of files, console, trackers, signals, resource limits."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from engines.base import World
from launcher.base import environment, signals
from launcher.base.diagnostics import PROGRAM
from launcher.base.redaction import redact, redact_variables
from launcher.config import machine
from launcher.config.schema import Settings, model_name
from launcher.run.samples import SamplesWriter
from launcher.run_folder.run_plan import RunPlan
from models.base import TracksProgress
from training.callbacks.base import Callback, RunInfo
from training.callbacks.preemption import Deadline, Emit, Preemption
from training.health import Health
from training.inspection import Architecture
from training.logging.console_reporter import ConsoleReporter
from training.logging.events import EventsWriter
from training.logging.metrics import MetricsWriter, ResourceUsage, ResultWriter, single_process
from training.logging.outputs import ConsoleOutput, LogFileOutput, PlainOutput
from training.resources.limits import LimitEnforcer
from training.resources.memory import CacheClearing
from training.resources.monitor import RESOURCES, MachineReader, ResourceMonitor
from training.storage import Storage
from training.train_plan import TrainPlan

if TYPE_CHECKING:
    from launcher.run.rank_data import RankData


@dataclass(frozen=True)
class RankCallbacks:
    """Builds the callbacks of one rank. What a run does not use is not imported."""

    job: RunPlan
    storage: Storage
    """The run folder."""
    world: World

    def build(self, settings: Settings, info: RunInfo) -> list[Callback]:
        """All callbacks of this rank; rank 0 also writes files and to the console."""
        job, device, limits = self.job, self.world.device, settings.limits
        is_replay = job.resume is not None and job.resume.until is not None  # of verify
        usage, reader = ResourceUsage(), MachineReader(device, self.storage.path)
        monitor = ResourceMonitor(reader.read, limits.check_every_s, usage)
        events = EventsWriter(self.storage, self.world.rank)
        callbacks: list[Callback] = [events]

        def emit(kind: str, facts: Mapping[str, object]) -> None:
            """Record an event of this rank; on rank 0 also in the console and the log."""
            if self.world.rank != 0:
                events.rank_event(kind, facts)
                return
            for callback in callbacks:
                callback.event(kind, facts)

        values, profile = job.resolved.values, settings.log.profile
        chosen = [
            name
            for name in RESOURCES
            if any(
                values[key].is_set_by_user
                for key in (f"limits.{name}", f"limits.critical.{name}")
                if key in values
            )
        ]
        if self.world.rank == 0:
            job_summary = single_process
            if job.generation is not None:
                from launcher.run_folder.generations import requeue_statistics

                job_summary = partial(requeue_statistics, self.storage.path, job.generation)
            callbacks += [
                MetricsWriter(self.storage, usage),
                ConsoleReporter(info, self._outputs(), usage=usage),
                ResultWriter(info, self.storage, usage, job_summary),
                self._health(settings, info, emit),
            ]
        if self.world.rank == 0 and not is_replay:
            callbacks.append(SamplesWriter(self.storage, emit))
            if settings.track:
                callbacks.append(self._trackers(settings, info, emit))
            if profile is not None:
                from training.callbacks.profiler import Profiler

                callbacks.append(Profiler(profile, self.storage, device, emit))
        callbacks += [
            Preemption(emit, settings.save.on_signal),
            _FinishStartup(),  # after Preemption, which handles signals from now on
            LimitEnforcer(limits, monitor, emit, chosen),
        ]
        if (every := settings.memory.empty_cache_every) is not None:
            callbacks.append(CacheClearing(every, device))
        if job.experience is not None and job.experience.deadline is not None:
            callbacks.append(Deadline(job.experience.deadline, emit))
        return callbacks

    def run_info(
        self,
        data: RankData,
        built: Architecture,
        samples: int,
        train_plan: TrainPlan,
        evaluated: tuple[int, int],
    ) -> RunInfo:
        """The names and numbers of the run that do not change; `evaluated` as in RunInfo."""
        settings, chosen = self.job.resolved.settings, self.job.resolved.chosen
        facts, notes = data.tasks[-1].facts(), [*self.job.resolved.notes, *data.notes]
        if self.job.experience is not None and "source" in facts:
            facts = {**facts, "source": settings.data.path}  # not the folder of links to its files
        device = self.world.device.type
        if device == "cuda":
            device = torch.cuda.get_device_name(self.world.device)
        return RunInfo(
            model=model_name(settings.model),
            mode=settings.mode,
            engine=settings.engine.name,
            device=device,
            precision=settings.precision,
            parameters=built.parameters,
            trainable_parameters=built.trained,
            architecture=built.digest,
            samples=samples,
            folder=self.storage.path,
            data=facts,
            notes=notes,
            evaluated=evaluated,
            loss_changes=isinstance(data.tasks[0], TracksProgress),
            stage=settings.stages[0] if settings.stages else None,
            environment=environment_facts(device),
            predicted_memory_bytes=None if chosen is None else chosen.predicted_memory_bytes,
        )

    def _health(self, settings: Settings, info: RunInfo, emit: Emit) -> Health:
        """The health checks of rank 0."""
        resolved, folder = self.job.resolved, self.storage.path
        control = resolved.values.get("data.control")
        learns = (control is None or control.value == "real") and not info.loss_changes

        def state(fault: str, values: Mapping[str, object]) -> None:
            """Emit a symptom with its likely cause and the next command."""
            from launcher.run import faults

            emit(*faults.advice(fault, values, faults.commands(resolved, folder)))

        reported: set[str] = set()
        if self.job.resume is not None:
            from launcher.run_folder.reader import RunReader

            events = RunReader(folder).events()
            reported = {str(e["facts"]["fault"]) for e in events if "fault" in e["facts"]}
        return Health(state, reported, learns=learns, has_patience=settings.stop.patience is not None)

    def _trackers(self, settings: Settings, info: RunInfo, emit: Emit) -> Callback:
        """The trackers of rank 0."""
        from training.trackers.follow import Run
        from training.trackers.process import Trackers

        values, folder = self.job.resolved.values.items(), self.storage.path
        resume = self.job.resume
        names = ("model", "mode", "engine", "device", "precision", "parameters", "samples", "stage")
        run = Run(
            folder=folder.absolute(),
            track=settings.track,
            pid=os.getpid(),
            settings=_without_secrets({key: item.value for key, item in values}),
            origins=_without_secrets(
                {key: f"{item.origin.layer}: {item.origin.where}" for key, item in values}
            ),
            facts={name: getattr(info, name) for name in names},
            went_back=resume is not None and resume.rewinds(folder),
            checkpoints=settings.tracking.checkpoints,
            command=f"{PROGRAM} track {shlex.quote(str(folder))}",
        )
        return Trackers(run, settings.tracking.wait_s, emit, self._report)

    def _report(self, kind: Literal["notice", "warning"], text: str) -> None:
        """Write a message after the outputs of the run were closed."""
        if self.job.console:
            PlainOutput(sys.stdout).write(kind, text)
        self.job.log(text)

    def _outputs(self) -> list[ConsoleOutput]:
        outputs: list[ConsoleOutput] = [LogFileOutput(self.storage)]
        if self.job.console and not sys.stdout.closed and sys.stdout.isatty():
            from training.logging.terminal import TerminalOutput, can_redraw

            if can_redraw(sys.stdout, environment.variables().get("TERM")):
                return [*outputs, TerminalOutput(sys.stdout)]
        return [*outputs, PlainOutput(sys.stdout)] if self.job.console else outputs


class _FinishStartup(Callback):
    """Ends the handling of startup signals when the training starts."""

    def __init__(self) -> None:
        self._startup = signals.job_signals()

    def start(self, train_plan: TrainPlan) -> None:
        if self._startup is not None:
            self._startup.end_start()


def _without_secrets(values: Mapping[str, Any]) -> Any:
    """`values` without secrets, for trackers."""
    return json.loads(redact_variables(redact(json.dumps(values)), environment.variables()))


def environment_facts(device: str) -> dict[str, Any]:
    """The machine of this process, its `device` by name, and the versions that train."""
    here = machine.detect_machine()
    return {
        "host": platform.node(),
        "system": platform.platform(terse=True),
        "cores": here.cores,
        "memory_bytes": here.ram_bytes,
        "gpus": here.gpus,
        "device": device,
        "libraries": environment.versions(),
    }
