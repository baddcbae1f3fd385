"""The default step of a family: as Gearshift runs it, and its model in a loop by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

import gearshift
from benchmarks.peers import LOG_EVERY
from benchmarks.workload import SEED, Samples
from gearshift.engines.precision import autocast_inside
from gearshift.launcher.config import schema
from gearshift.launcher.config.machine import detect_machine
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.config.resolve import resolve
from gearshift.models.base import Task
from gearshift.training.data.loader import on_device
from gearshift.training.data.samples import DataOrder
from gearshift.training.seeds import seed_weights


@dataclass(frozen=True)
class FamilyWork:
    """`steps` default steps of a family's `size` on one device."""

    family: str
    size: str
    steps: int
    device: str
    folder: Path
    """For the files of the task and of the run."""

    @property
    def settings(self) -> dict[str, Any]:
        """What differs from a run by default: nothing but training, and its length."""
        return {
            "device": self.device,
            "train.max_steps": self.steps,
            "train.epochs": 1000,
            "train.preview": False,
            "train.seed": SEED,
            "schedule.name": "constant",
            "schedule.warmup": 0,
            "eval.every": None,
            "stop.patience": None,
            "save.every": None,
            "log.every": LOG_EVERY,
        }

    def train(self, engine: str, more: Mapping[str, Any]) -> None:
        """Run Gearshift; `more` are further settings."""
        name, out = f"{self.family}:{self.size}", self.folder / "run"
        gearshift.train(name, engine=engine, out=out, settings=self.settings | dict(more))

    @cached_property
    def resolved(self) -> Any:
        """The settings of the run."""
        values = {"engine.name": "local", **self.settings}
        sets = [f"{key}={'null' if v is None else v}" for key, v in values.items()]
        arguments = CliArgs(model=f"{self.family}:{self.size}", sets=sets)
        return resolve(arguments, detect_machine(), 1)

    @property
    def samples(self) -> int:
        """Of a step."""
        return int(self.resolved.batching.global_batch)

    @cached_property
    def task(self) -> Task:
        """The task with its data."""
        return schema.task_with_data(self.resolved.settings, self.folder)

    def flops(self) -> float | None:
        """Floating point operations of a step; None: unknown."""
        found = self.task.flops_per_sample(self.task.build())
        return None if found is None else found * self.samples

    def by_hand(self, compiler: str | None) -> None:
        """Train in a hand-written loop; `compiler` is the backend of each block, None: eager."""
        settings, task = self.resolved.settings, self.task
        seed_weights(SEED)
        model = task.build().to(self.device).train()
        if task.channels_last:
            untyped: Any = model  # some versions of torch do not declare memory_format
            untyped.to(memory_format=torch.channels_last)
        autocast_inside(model, settings.precision, torch.device(self.device))
        for block in task.blocks(model) if compiler else ():
            block.compile(backend=compiler)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=settings.optim.lr, fused=True)
        for micro_batches in self._steps():
            for batch in micro_batches:
                units = task.num_units(batch)
                moved = on_device(batch, torch.device(self.device))
                _mean(task.loss(model, moved).sum, units).backward()
            if settings.optim.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained, settings.optim.clip_norm)
            optimizer.step()
            optimizer.zero_grad()

    def _steps(self) -> Iterator[Iterator[Any]]:
        """The micro-batches of each step."""
        batching, loader = self.resolved.batching, self.resolved.settings.loader
        samples = Samples(self.task.data("train"))
        order = DataOrder(len(samples), self.samples, SEED)
        indices = [
            share
            for step in range(self.steps)
            for share in order.share(step, 0, 1, batching.micro_batch)[1]
        ]
        batches = iter(
            DataLoader(
                samples,
                batch_sampler=indices,
                collate_fn=self.task.collate,
                num_workers=loader.workers,
                pin_memory=self.device != "cpu",
            )
        )
        for _ in range(self.steps):
            yield islice(batches, batching.accumulation)


def _mean(loss: Any, units: Any) -> Tensor:
    """The sum over terms of each mean over its units."""
    terms = loss if isinstance(loss, Mapping) else {"": loss}
    counts = units if isinstance(units, Mapping) else {"": units}
    found = [term / max(1, counts[name]) for name, term in terms.items()]
    return torch.stack(found).sum()
