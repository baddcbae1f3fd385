"""How much longer is a step of the full eeg_text if its frozen encoder runs in each step?

    python -m benchmarks.encoded

The model of stage `text` in its full size, on a few embedded sentences, under the engine local. The
encoder is first run over all of them, which is timed as well; then steps that read what it made and
steps in which it runs take turns. A step is the global batch of the mode and one update: in its
micro-batches of one sample, and in a single micro-batch.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from benchmarks.figures import command, machine, rows, save, table
from engines.base import Engine, Options
from engines.catalog import build_engine
from engines.world import open_world
from launcher.config.machine import detect_machine
from launcher.config.provenance import CliArgs
from launcher.config.resolve import resolve
from launcher.config.schema import task_class
from models.base import Context, HasFrozenEncoder, Task
from training.accumulate import accumulate, total_units
from training.data import feature_cache
from training.data.samples import MicroBatch, Samples
from training.optim import optimizer
from training.seeds import seed_weights

PACKAGES = ("torch", "transformers")
SETTINGS = (
    "model.freeze_encoder=true",
    "memory.activation_checkpointing=full",
    "optim.name=adafactor",
    "feature_cache.mode=on",
    "data.path=embedded:reading-small",
    "data.fraction=0.02",
    "eval.share=0.2",
)
"""The settings of the stage, with few sentences, which the model pads to the full length."""
RUNS, READ = "encoder in each step", "features read"
ONE_BY_ONE, TOGETHER = "one by one", "together"
Way = tuple[str, str]
"""How the encoder outputs are obtained, and in which batches."""


@dataclass(frozen=True)
class Subject:
    """A prepared model, and the micro-batches of one step for each way to feed it."""

    task: Task
    engine: Engine
    module: Module
    batches: Mapping[Way, Sequence[MicroBatch]]

    def seconds(self, way: Way) -> float:
        """Time of one step."""
        begin = time.perf_counter()
        batches = self.batches[way]
        units = total_units(batch.num_units for batch in batches)
        accumulate(self.task, self.engine, self.module, batches, units)
        self.engine.step()
        return time.perf_counter() - begin


def subject(model: str, folder: Path) -> tuple[Subject, float]:
    """`model` as in stage `text`, and the seconds per input that its encoder took before."""
    arguments = CliArgs(model=model, sets=list(SETTINGS))
    resolved = resolve(arguments, detect_machine(), 1)
    settings: Any = resolved.settings
    world = open_world("cpu", 600.0, always_group=False)
    context = Context(0, settings.eval.share, None, torch.device("cpu"))
    task = task_class("eeg_text")(settings.model, settings.data, context)
    task.setup()
    seed_weights(0)
    built = task.build()
    every = 1 if settings.memory.activation_checkpointing == "full" else 0
    engine = build_engine("local", world, Options(activation_checkpointing=every))
    module = engine.prepare(built, optimizer.spec(settings, built, world), task.blocks(built))
    module.train()
    size = resolved.batching.global_batch
    batches = _steps(task, RUNS, size)
    assert isinstance(task, HasFrozenEncoder)
    inputs = sum(len(task.encoder_inputs(split)) for split in ("train", "val"))
    begin = time.perf_counter()
    location = feature_cache.CacheLocation(folder, {"precision": settings.precision})
    feature_cache.use(task, built, module, engine, settings.feature_cache, location, print)
    each = (time.perf_counter() - begin) / inputs
    return Subject(task, engine, module, batches | _steps(task, READ, size)), each


def _steps(task: Task, name: str, size: int) -> dict[Way, Sequence[MicroBatch]]:
    return {(name, ONE_BY_ONE): _step(task, 1, size), (name, TOGETHER): _step(task, size, 1)}


def _step(task: Task, micro_batch: int, accumulation: int) -> list[MicroBatch]:
    split = task.data("train")
    samples, found = Samples(task, split, 0), []
    for number in range(accumulation):
        indices = [(number * micro_batch + n) % len(split) for n in range(micro_batch)]
        batch = samples[0, indices]
        assert isinstance(batch, MicroBatch)
        found.append(batch)
    return found


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="eeg_text:full")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        timed, each = subject(options.model, Path(folder))
        measured = []
        for number in range(-1, options.rounds):  # round -1 warms up, thrown away
            seconds = {way: timed.seconds(way) for way in timed.batches}
            measured += [seconds] if number >= 0 else []
    tables = {
        portions: rows([{n: r[n, portions] for n in (RUNS, READ)} for r in measured], READ)
        for portions in (ONE_BY_ONE, TOGETHER)
    }

    facts = machine(PACKAGES) | {"an input encoded in": f"{each:.2f} s"}
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    for portions, result in tables.items():
        print(f"\n{portions}\n{table(result)}")
    save(options.json, command("encoded", sys.argv[1:]), facts, tables)


if __name__ == "__main__":
    main()
