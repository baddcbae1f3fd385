"""The callbacks of a rank: writers of files, console, trackers, signals, resource limits."""

from __future__ import annotations

import json
import platform
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from gearshift.engines.base import World
from gearshift.launcher.base import environment, signals
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.launcher.base.redaction import redact, redact_variables
from gearshift.launcher.base.signals import ProcessPhase
from gearshift.launcher.config import machine
from gearshift.launcher.config.schema import Settings, model_name
from gearshift.launcher.run.samples import SamplesWriter
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.base import TracksProgress
from gearshift.training.callbacks.base import Callback, Emit, Facts, RunInfo
from gearshift.training.callbacks.preemption import Deadline, Preemption
from gearshift.training.health import Health
from gearshift.training.inspection import Architecture
from gearshift.training.logging.console_reporter import ConsoleReporter
from gearshift.training.logging.console_text import render_row
from gearshift.training.logging.events import EventsWriter
from gearshift.training.logging.metrics import MetricsWriter, ResultWriter
from gearshift.training.logging.outputs import ConsoleOutput, LogFileOutput, PlainOutput, can_redraw
from gearshift.training.resources.limits import LimitEnforcer
from gearshift.training.resources.memory import CacheClearing
from gearshift.training.resources.monitor import RESOURCES, ResourceMonitor
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gearshift.models.base import Task


def build(
    job: RunPlan, settings: Settings, storage: Storage, world: World, info: RunInfo
) -> list[Callback]:
    """All callbacks of this rank; rank 0 also writes files and to the console.

    What a run does not use is not imported.
    """
    device = world.device
    limits = settings.limits
    folder = storage.path
    monitor = ResourceMonitor(device, folder, limits.check_every_s)
    events = EventsWriter(storage, world.rank)
    callbacks: list[Callback] = [events]

    def emit(kind: str, facts: Facts) -> None:
        """Record an event of this rank; on rank 0 also in the console and the log."""
        if world.rank != 0:
            events.rank_event(kind, facts)
            return
        for callback in callbacks:
            callback.event(kind, facts)

    if world.rank == 0:
        outputs: list[ConsoleOutput] = [LogFileOutput(storage)]
        if job.console and can_redraw(sys.stdout, environment.variables().get("TERM")):
            from gearshift.training.logging.terminal import TerminalOutput

            outputs.append(TerminalOutput(sys.stdout))
        elif job.console:
            outputs.append(PlainOutput(sys.stdout))
        job_summary: Callable[[], Facts] = dict
        if job.generation is not None:
            from gearshift.launcher.run_folder.generations import requeue_statistics

            job_summary = partial(requeue_statistics, folder, job.generation)
        callbacks += [
            MetricsWriter(storage, lambda: monitor.newest),
            ConsoleReporter(info, outputs, usage=lambda: monitor.newest),
            ResultWriter(info, storage, lambda: monitor.highest, job_summary, world.size),
            _health(job, settings, folder, info, emit),
        ]
        if job.resume is None or job.resume.until is None:  # not a replay of verify
            callbacks.append(SamplesWriter(storage, emit))
            if settings.track:
                callbacks.append(_trackers(job, settings, folder, info, emit))
            if settings.log.profile is not None:
                from gearshift.training.callbacks.profiler import Profiler

                callbacks.append(Profiler(settings.log.profile, storage, device, emit))
    decided = job.resolved.keys.decided
    chosen = [name for name in RESOURCES if decided & {f"limits.{name}", f"limits.critical.{name}"}]
    callbacks += [
        Preemption(
            emit, partial(signals.phase, ProcessPhase.TRAINS), saves=settings.save.on_signal
        ),
        LimitEnforcer(limits, monitor, emit, chosen),
    ]
    if (every := settings.memory.empty_cache_every) is not None:
        callbacks.append(CacheClearing(every, device))
    if job.experience is not None and job.experience.deadline is not None:
        callbacks.append(Deadline(job.experience.deadline, emit))
    return callbacks


def run_info(
    job: RunPlan,
    tasks: Sequence[Task],
    built: Architecture,
    samples: int,
    evaluated: tuple[int, int],
    folder: Path,
    device: torch.device,
) -> RunInfo:
    """The names and numbers of the run that do not change; `evaluated` as in RunInfo."""
    settings = job.resolved.settings
    chosen = job.resolved.chosen
    of_data = tasks[-1].facts()
    name = device.type
    notes = [*job.resolved.notes]
    if job.experience is not None and "source" in of_data:
        of_data = {**of_data, "source": settings.data.path}  # not the folder of links to its files
    if job.number:
        new = len(tasks[-1].data("train"))
        counts = f"{new} new and {samples - new} replayed samples per epoch"
        notes.append(f"experience {job.number}: {counts}")
    if name == "cuda":
        name = torch.cuda.get_device_name(device)
    here = machine.detect_machine()
    return RunInfo(
        model=model_name(settings.model),
        mode=settings.mode,
        engine=settings.engine.name,
        device=name,
        precision=settings.precision,
        parameters=built.parameters,
        trainable_parameters=built.trained,
        architecture=built.digest,
        samples=samples,
        folder=folder,
        data=of_data,
        notes=notes,
        evaluated=evaluated,
        loss_changes=isinstance(tasks[0], TracksProgress),
        stage=settings.stages[0] if settings.stages else None,
        environment={
            "host": platform.node(),
            "system": platform.platform(terse=True),
            "cores": here.cores,
            "memory_bytes": here.ram_bytes,
            "gpus": here.gpus,
            "device": name,
            "libraries": environment.versions(),
        },
        predicted_memory_bytes=None if chosen is None else chosen.predicted_memory_bytes,
    )


def _health(job: RunPlan, settings: Settings, folder: Path, info: RunInfo, emit: Emit) -> Health:
    """The health checks of rank 0."""
    control = job.resolved.values.get("data.control")
    learns = (control is None or control.value == "real") and not info.loss_changes

    def state(fault: str, values: Facts) -> None:
        """Emit a symptom with its likely cause and the next command."""
        from gearshift.launcher.run import faults

        emit(*faults.advice(fault, values, faults.commands(job.resolved, folder)))

    reported: set[str] = set()
    if job.resume is not None:
        from gearshift.launcher.run_folder.reader import RunReader

        events = RunReader(folder).events()
        reported = {str(e["facts"]["fault"]) for e in events if "fault" in e["facts"]}
    return Health(state, reported, learns=learns, has_patience=settings.stop.patience is not None)


def _trackers(
    job: RunPlan, settings: Settings, folder: Path, info: RunInfo, emit: Emit
) -> Callback:
    """The trackers of rank 0."""
    from gearshift.training.trackers.follow import Run
    from gearshift.training.trackers.process import Trackers

    def clean(values: Facts) -> Any:
        """`values` without secrets."""
        return json.loads(redact_variables(redact(json.dumps(values)), environment.variables()))

    def report(kind: Literal["notice", "warning"], label: str, text: str) -> None:
        """Write a message after the outputs of the run were closed."""
        text = (
            render_row(label, text)
            if kind == "notice"
            else render_row("warning", f"{label}: {text}")
        )
        if job.console:
            PlainOutput(sys.stdout).write(kind, text)
        job.log(text)

    values = job.resolved.values.items()
    tracking = settings.tracking
    resume = job.resume
    names = ("model", "mode", "engine", "device", "precision", "parameters", "samples", "stage")
    may_repeat = resume is not None and (resume.step is not None or bool(resume.reset))
    run = Run(
        folder=folder.absolute(),
        track=settings.track,
        settings=clean({key: item.value for key, item in values}),
        origins=clean({key: f"{item.origin.layer}: {item.origin.where}" for key, item in values}),
        facts={name: getattr(info, name) for name in names},
        went_back=may_repeat and resume is not None and resume.source.resolve() == folder.resolve(),
        checkpoints=tracking.checkpoints,
        command=f"{PROGRAM} track {shlex.quote(str(folder))}",
    )
    return Trackers(run, tracking.wait_s, emit, report)
