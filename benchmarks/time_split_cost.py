"""What does it cost that every run measures where its time goes?

    python -m benchmarks.time_split_cost --rounds 15

One run, in which stretches of steps with the time split and without take turns; each stretch has
one logged line. A round is the median of its stretches of a kind.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.clock import StepClock
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import train
from benchmarks.peers import LOG_EVERY
from benchmarks.workload import Work
from training.time_split import TimeSplit

WITHOUT, WITH = "without", "with"
WARMUP = 4 * LOG_EVERY + 1
"""Steps before the first stretch, which begins after a logged line."""
_ENTER = TimeSplit.enter


class Stretches:
    """Switches the split on and off during a run, and times each stretch."""

    def __init__(self, count: int) -> None:
        # on, off, off, on: a drift of the machine's speed affects both alike.
        self.kinds = [(WITH, WITHOUT, WITHOUT, WITH)[number % 4] for number in range(count)]
        self._marks: list[float] = []

    def after(self, step: int) -> None:
        """Called after the optimizer of each step."""
        done, rest = divmod(step - WARMUP, LOG_EVERY)
        if done < 0 or rest or done > len(self.kinds):
            return
        self._marks.append(time.perf_counter())
        kind = self.kinds[done] if done < len(self.kinds) else WITH
        TimeSplit.enter = _ENTER if kind == WITH else _ignore  # type: ignore[method-assign,assignment]

    def rounds(self, count: int) -> list[dict[str, float]]:
        """Seconds per step of each kind, in `count` rounds of equally many stretches."""
        seconds = [(end - begin) / LOG_EVERY for begin, end in pairwise(self._marks)]
        timed = list(zip(self.kinds, seconds, strict=True))
        size = len(timed) // count
        parts = [timed[number * size : (number + 1) * size] for number in range(count)]
        return [
            {kind: median(s for k, s in part if k == kind) for kind in (WITHOUT, WITH)}
            for part in parts
        ]


def _ignore(split: TimeSplit, part: str) -> None:
    """In the place of TimeSplit.enter: nothing is measured."""


def measure(work: Mapping[str, Any], rounds: int, pairs: int) -> Sequence[Mapping[str, float]]:
    """Train once; seconds per step of each kind in each round."""
    stretches = Stretches(2 * pairs * rounds)
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


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of stretches in each round")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.pairs % 2:
        parser.error("--pairs must be even: the order changes from pair to pair")
    work = {
        "size": options.size,
        "micro_batch": options.micro_batch,
        "device": options.device,
        "threads": options.threads,
    }
    result = rows(measure(work, options.rounds, options.pairs), WITHOUT)

    facts = machine(("torch",))
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(f"language:{options.size}, micro-batch {options.micro_batch}, {options.device}")
    print(table(result))
    save(options.json, command("time_split_cost", sys.argv[1:]), facts, {"time split": result})


if __name__ == "__main__":
    main()
