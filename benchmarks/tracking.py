"""What does W&B cost a run: time to its first step, and time of a logged step?

    python -m benchmarks.tracking --rounds 7

The same command with `--track wandb` and without, in turns. W&B is offline: a server would only
make it later. For the logged step the hooks are called as the loop calls them, thousands of times.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import command, machine, rows, save, table
from benchmarks.startup import seconds_until_line
from training.callbacks.base import Callback, Outcome, RunInfo, StepMetrics
from training.logging.events import EventsWriter
from training.logging.metrics import MetricsWriter
from training.logging.result import ResultWriter
from training.storage import Storage
from training.trackers.follow import Run
from training.trackers.process import Trackers
from training.train_plan import TrainPlan

PACKAGES = ("torch", "wandb")
WITHOUT, WITH = "not tracked", "--track wandb"
STEPS = 5000


def first_step(size: str, folder: Path, track: bool) -> float:
    """Seconds from the command to the first line of metrics."""
    arguments = [sys.executable, "-m", "launcher", "--model", f"language:{size}", "--engine", "local"]
    arguments += ["--max-steps", "1", "--batch-size", "16", "--out", str(folder)]
    arguments += ["--set", "log.every=1", "--set", "train.accumulation=1", "--precision", "fp32"]
    arguments += ["--track", "wandb"] if track else []
    return seconds_until_line(arguments, folder / "metrics.jsonl")


def logged_step(folder: Path, track: bool) -> float:
    """Seconds of one logged step in all callbacks that write metrics, as a mean over STEPS."""
    folder.mkdir()
    about = RunInfo("language:tiny", "default", "local", "cpu", "fp32", 1, folder)
    facts = {"model": about.model, "mode": about.mode, "engine": about.engine}
    run = Run(folder, ["wandb"], os.getpid(), {}, {}, facts, command="")
    trackers = Trackers(run, 600.0, lambda kind, facts: None, lambda kind, text: None)
    callbacks: Sequence[Callback] = [
        EventsWriter(Storage(folder)),
        MetricsWriter(Storage(folder)),
        ResultWriter(about, Storage(folder)),
        *[trackers] * track,
    ]
    train_plan = TrainPlan(STEPS, STEPS, 1, 1, 1, 1, "tokens")
    for callback in callbacks:
        callback.start(train_plan)
    lines = [_line(step) for step in range(1, STEPS + 1)]
    began = time.perf_counter()
    for line in lines:
        for callback in callbacks:
            callback.logged(line)
    seconds = (time.perf_counter() - began) / STEPS
    for callback in callbacks:
        callback.end(Outcome("completed", "", 0, STEPS, 1.0, seconds, None, None))
    return seconds


def _line(step: int) -> StepMetrics:
    return StepMetrics(
        step, 0.5, step, step, 1 / step, {}, 1.0, 1e-3, 0, None, 0.1, 0.01, 10.0, 10.0, None, None, 1
    )


def main() -> None:
    """Measure, print the tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    os.environ["WANDB_MODE"] = "offline"

    starts, steps = [], []
    for number in range(-1, options.rounds):  # round -1 fills the file cache, thrown away
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name)
            start = {
                WITHOUT: first_step(options.size, folder / "without", track=False),
                WITH: first_step(options.size, folder / "with", track=True),
            }
            step = {
                WITHOUT: logged_step(folder / "steps-without", track=False),
                WITH: logged_step(folder / "steps-with", track=True),
            }
        if number >= 0:
            starts.append(start)
            steps.append(step)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    tables = {"first step": rows(starts, WITHOUT), "logged step": rows(steps, WITHOUT)}

    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(table(tables["first step"], unit="ms to the first step"))
    print(table(tables["logged step"], unit="ms a logged step"))
    save(options.json, command("tracking", sys.argv[1:]), facts, tables)


if __name__ == "__main__":
    main()
