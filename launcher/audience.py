"""Who is told of a run: its files, the person at the console, signals and the machine's limits."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from engines.base import World
from launcher.settings.resolved import Resolved
from launcher.settings.schema import model_name
from models.base import Task
from training.about import About
from training.console.narrator import Narrator
from training.console.plain import Plain
from training.console.terminal import Terminal, is_capable
from training.console.voice import Voice
from training.governor import Governor
from training.hooks import Hook
from training.monitor import Monitor, read_machine
from training.preempt import Preempt
from training.records.events import Events
from training.records.log_file import LogFile
from training.records.metrics import Metrics
from training.records.result import Result


@dataclass(frozen=True)
class Listeners:
    """What the hooks of a rank are told of its run."""

    resolved: Resolved
    folder: Path
    world: World
    console: bool
    """Whether this rank may write to the terminal."""

    def hooks(self, settings: Any, about: About) -> list[Hook]:
        """All hooks of this rank; files and the console are rank 0's."""
        events = Events(self.folder, self.world.rank)
        found: list[Hook] = [events]

        def tell(kind: str, facts: Mapping[str, object]) -> None:
            """What this rank alone saw: on rank 0 the console and the log are told, too."""
            if self.world.rank != 0:
                events.tell(kind, facts)
                return
            for hook in found:
                hook.event(kind, facts)

        if self.world.rank == 0:
            found += [Metrics(self.folder), Narrator(about, self._voices()), Result(about)]
        read = partial(read_machine, self.world.device)
        limits = settings.limits
        found += [
            Preempt(tell, settings.save.on_signal),
            Governor(limits, Monitor(read, limits.check_every_s), tell),
        ]
        return found

    def about(self, task: Task, parameters: int) -> About:
        """The names and numbers of the run that do not change."""
        settings = self.resolved.settings
        return About(
            model=model_name(settings.model),
            mode=settings.mode,
            engine=settings.engine.name,
            device=device_name(self.world.device),
            precision=settings.precision,
            parameters=parameters,
            folder=self.folder,
            data=task.facts(),
            notes=self.resolved.notes,
        )

    def _voices(self) -> list[Voice]:
        voices: list[Voice] = [LogFile(self.folder)]
        if self.console:
            voices.append(Terminal(sys.stdout) if is_capable(sys.stdout) else Plain(sys.stdout))
        return voices


def device_name(device: torch.device) -> str:
    """What a person calls the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
