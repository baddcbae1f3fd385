"""The callbacks of a rank: writers of files, console, trackers, signals, resource limits."""

from __future__ import annotations

import hashlib
import platform
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gearshift.engines.base import World
from gearshift.launcher.base import environment, signals
from gearshift.launcher.base.signals import ProcessPhase
from gearshift.launcher.config import machine
from gearshift.launcher.config.provenance import as_list, hub_names
from gearshift.launcher.config.schema import DATA_PATH, Settings, model_name
from gearshift.launcher.run_folder.run_folder import SAMPLES
from gearshift.launcher.run_folder.run_plan import RunPlan
from gearshift.models.base import DataError, TracksProgress
from gearshift.training.callbacks.base import Callback, Emit, Facts, RunInfo
from gearshift.training.callbacks.preemption import Deadline, Preemption
from gearshift.training.health import Health
from gearshift.training.inspection import Architecture
from gearshift.training.logging.console_reporter import (
    ConsoleOutput,
    ConsoleReporter,
    LogFileOutput,
    PlainOutput,
    can_redraw,
)
from gearshift.training.logging.encoding import encode_bytes
from gearshift.training.logging.metrics import EventsWriter, MetricsWriter, ResultWriter
from gearshift.training.resources.limits import RESOURCES, LimitEnforcer, ResourceMonitor
from gearshift.training.resources.memory import CacheClearing
from gearshift.training.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gearshift.models.base import Predictions, Task

_SIDE = 1000
"""Pixels of the longer side of a small picture of a sample at most."""
_PICTURE_BYTES = 50_000
"""Of a picture at most, so that a report with the pictures of both times stays small."""
_LONGEST = 4000
"""Characters of a cell of a sample."""


def build(
    job: RunPlan, settings: Settings, storage: Storage, world: World, info: RunInfo
) -> list[Callback]:
    """All callbacks of this rank; rank 0 also writes files and to the console.

    What a run does not use is not imported.
    """
    device = world.device
    limits = settings.limits
    folder = storage.path
    monitor = ResourceMonitor(device, limits.check_every_s)
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
        if job.generation:
            from gearshift.launcher.run_folder.generations import requeue_statistics

            job_summary = partial(requeue_statistics, folder, job.generation)
        callbacks += [
            MetricsWriter(storage, lambda: monitor.newest),
            ConsoleReporter(info, outputs, usage=lambda: monitor.newest),
            ResultWriter(info, storage, job_summary, world.size),
            _health(job, settings, folder, info, emit),
        ]
        if not job.resume or job.resume.until is None:  # not a replay of verify
            callbacks.append(SamplesWriter(storage, emit))
            if settings.track:
                from gearshift.launcher.run import tracking

                callbacks.append(tracking.build(job, settings, folder, info, emit))
            if settings.log.profile:
                from gearshift.training.callbacks.profiler import Profiler

                callbacks.append(Profiler(settings.log.profile, storage, device, emit))
    decided = job.resolved.keys.decided
    chosen = []
    for name in RESOURCES:
        if f"limits.{name}" in decided or f"limits.critical.{name}" in decided:
            chosen.append(name)
    listen = partial(signals.phase, ProcessPhase.TRAINS)
    callbacks += [
        Preemption(emit, listen, saves=settings.save.on_signal),
        LimitEnforcer(limits, monitor, emit, chosen),
    ]
    every = settings.memory.empty_cache_every
    if every:
        callbacks.append(CacheClearing(every, device))
    if job.experience and job.experience.deadline:
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
    if "source" in of_data and (job.experience or hub_names(job.resolved.values, DATA_PATH)):
        # Not the folder of links to its files.
        of_data = {**of_data, "source": " + ".join(as_list(settings.data.path))}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
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
        notes=job.resolved.notes,
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
        predicted_memory_bytes=chosen.predicted_memory_bytes if chosen else None,
    )


def surroundings(environment: Facts, task: Task) -> Facts:
    """By kind: packages and machine as in the `environment` of a run, threads, the task's sources.

    Imports nothing; reads the sources.
    """
    machine = {**environment, "instructions": torch.backends.cpu.get_cpu_capability()}
    del machine["memory_bytes"]
    packages = {**machine.pop("libraries")}
    sources = {}
    home = vars(sys.modules[type(task).__module__])
    folder = Path(home.get("__file__") or "").parent  # a notebook has none
    for name, module in list(sys.modules.items()):
        if module is None:  # its import is blocked
            continue
        # Not getattr: a lazy module would import others.
        version = vars(module).get("__version__")
        path = Path(vars(module).get("__file__") or "")
        if isinstance(version, str) and "." not in name:
            packages[name] = version
        # Not those of an environment in that folder.
        if path.is_relative_to(folder) and "site-packages" not in path.parts and path.is_file():
            sources[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    threads = {"threads": torch.get_num_threads()}
    return {"package": packages, "machine": machine, "threads": threads, "source": sources}


def _health(job: RunPlan, settings: Settings, folder: Path, info: RunInfo, emit: Emit) -> Health:
    """The health checks of rank 0."""
    control = job.resolved.values.get("data.control")
    learns = (control is None or control.value == "real") and not info.loss_changes

    def state(fault: str, values: Facts) -> None:
        """Emit a symptom with its likely cause and the next command."""
        from gearshift.launcher.run import faults

        emit(*faults.advice(fault, values, faults.commands(job.resolved, folder)))

    reported: set[str] = set()
    if job.resume:
        from gearshift.launcher.run_folder.reader import RunReader

        facts = [event["facts"] for event in RunReader(folder).events()]
        reported = {str(each["fault"]) for each in facts if "fault" in each}
    return Health(state, reported, learns=learns, has_patience=settings.stop.patience is not None)


class SamplesWriter(Callback):
    """Writes samples/before.json and samples/after.json with small pictures beside them.

    With trackers also samples/step-N.json of evaluations. For rank 0. Touches the disk. A failure
    is a warning event, since a run must not end for its report.
    """

    def __init__(self, storage: Storage, emit: Emit) -> None:
        self._storage = storage
        self._emit = emit

    def sampled(self, predictions: Predictions, when: str, step: int) -> None:
        """Replace the samples of that time."""
        self._write(predictions, when, step, is_small=True)

    def predicted(self, predictions: Predictions, step: int) -> None:
        """Write those of an evaluation, and an event that names the file."""
        name = f"step-{step:08}"
        if self._write(predictions, name, step, is_small=False):
            self._emit("predicted", {"file": f"{name}.json"})

    def _write(self, predictions: Predictions, when: str, step: int, *, is_small: bool) -> bool:
        """Write the samples, with small pictures or whole ones; whether it succeeded."""
        storage = self._storage
        pictures: list[Mapping[str, str]] = []
        try:
            (storage.path / SAMPLES).mkdir(exist_ok=True)
            for number, picture in enumerate(predictions.pictures, start=1):
                # a name of a custom task may be no file name
                file = f"{when}-{number}.png"
                png = picture.png
                if is_small:
                    from gearshift.models.common.pictures import small  # for tasks with pictures

                    png = small(png, _SIDE, _PICTURE_BYTES)
                storage.atomic_write(f"{SAMPLES}/{file}", png)
                pictures.append({"name": picture.name, "caption": picture.caption, "file": file})
            content = {
                "step": step,
                "columns": list(predictions.columns),
                "rows": [[_cut(cell) for cell in row] for row in predictions.rows],
                "pictures": pictures,
            }
            storage.atomic_write(f"{SAMPLES}/{when}.json", encode_bytes(content, indent=2) + b"\n")
        except (OSError, DataError, TypeError, ValueError) as error:
            # Of a custom task: a picture that is no PNG, a cell that is neither text nor a number.
            self._emit(
                "warning", {"text": f"samples were not written: {error}", "subject": SAMPLES}
            )
            return False
        return True


def _cut(cell: str | float | None) -> str | float:
    """A cell as it is shown."""
    if cell is None:
        return "–"
    return cell[:_LONGEST] if isinstance(cell, str) else cell
