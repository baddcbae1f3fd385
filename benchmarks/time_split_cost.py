"""What does it cost that every run measures where its time goes?

    python -m benchmarks.time_split_cost
    python -m benchmarks.time_split_cost --pairs 0

First table: the marks of a step and reading them, repeated alone, beside a step. Second table: a
run in which stretches of steps with the time split and without take turns; each has one logged
line, and a round is the median of its stretches of a kind. This table needs a quiet machine, the
first one does not; `--pairs 0` leaves it out. On a CPU all figures are processor time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import torch

from benchmarks.clock import StepClock
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import train
from benchmarks.peers import LOG_EVERY
from benchmarks.workload import Work
from training.step_timer import DATA, OPTIMIZER, StepTimer, clock_of

WITHOUT, WITH = "without", "with"
STEP, MARKS = "a step", "its marks"
WARMUP = 4 * LOG_EVERY + 1
"""Steps before the first stretch, which begins after a logged line."""
MARKED_STEPS = 10_000
_ENTER = StepTimer.enter


class Stretches:
    """Switches the split on and off during a run, and times each stretch."""

    def __init__(self, pairs: int, alone: int, now: Callable[[], float]) -> None:
        """`alone`: stretches without the split, if there are no pairs."""
        # In pairs of either order: neither drift nor what recurs after some steps favors a kind.
        order, pair = Random(0), (WITHOUT, WITH)
        self.kinds = [kind for _ in range(pairs) for kind in order.sample(pair, 2)]
        self.kinds = self.kinds or [WITHOUT] * alone
        self._now = now
        self._marks: list[float] = []

    def after(self, step: int) -> None:
        """Called after the optimizer of each step."""
        done, rest = divmod(step - WARMUP, LOG_EVERY)
        if done < 0 or rest or done > len(self.kinds):
            return
        self._marks.append(self._now())
        kind = self.kinds[done] if done < len(self.kinds) else WITH
        StepTimer.enter = _ENTER if kind == WITH else _ignore  # type: ignore[method-assign,assignment]

    def rounds(self, count: int) -> list[dict[str, float]]:
        """Seconds per step of each kind, in `count` rounds of equally many stretches."""
        seconds = [(end - begin) / LOG_EVERY for begin, end in pairwise(self._marks)]
        timed = list(zip(self.kinds, seconds, strict=True))
        size = len(timed) // count
        parts = [timed[number * size : (number + 1) * size] for number in range(count)]
        kinds = [kind for kind in (WITHOUT, WITH) if kind in self.kinds]
        return [{kind: median(s for k, s in part if k == kind) for kind in kinds} for part in parts]


def _ignore(split: StepTimer, part: str) -> None:
    """In the place of StepTimer.enter: nothing is measured."""


def measure(
    work: Mapping[str, Any], rounds: int, pairs: int, now: Callable[[], float]
) -> Sequence[Mapping[str, float]]:
    """Train once; seconds per step of each kind in each round."""
    stretches = Stretches(pairs * rounds, rounds, now)
    steps = WARMUP + len(stretches.kinds) * LOG_EVERY
    done = Work(**work, steps=steps)
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        StepClock(1, steps, done.device, stretches.after),
    ):
        train(done, "local", Path(folder) / "run", {"save.last": False, "save.keep_best": 0})
    return stretches.rounds(rounds)


def marks_s(device: str, now: Callable[[], float]) -> float:
    """Seconds for the marks of a step of one micro-batch, reading them included."""
    split = StepTimer()
    split.start(clock_of(torch.device(device)))
    passes = split.forward
    began = now()
    for step in range(1, MARKED_STEPS + 1):
        with split.within(DATA):
            pass
        with passes:
            pass
        with split.within(OPTIMIZER):
            pass
        if step % LOG_EVERY == 0:
            split.means()
    return (now() - began) / MARKED_STEPS


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of stretches in each round")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    work = {
        "size": options.size,
        "micro_batch": options.micro_batch,
        "device": options.device,
        "threads": options.threads,
    }
    now = time.process_time if options.device == "cpu" else time.perf_counter
    found = measure(work, options.rounds, options.pairs, now)
    marked = [{STEP: one[WITHOUT], MARKS: marks_s(options.device, now)} for one in found]
    tables = {"marks": rows(marked, STEP)}
    if options.pairs:
        tables["turns"] = rows(found, WITHOUT)

    facts = machine(("torch",))
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(f"language:{options.size}, micro-batch {options.micro_batch}, {options.device}")
    for result in tables.values():
        print(table(result))
    save(options.json, command("time_split_cost", sys.argv[1:]), facts, tables)


if __name__ == "__main__":
    main()
