"""How long do ranks wait for each other to agree on requests, before a step and a step ahead?

    python -m benchmarks.agreement --processes 8 --rounds 3

Each step of a rank takes --step-ms, and --late-ms more in one of --processes steps at random, as a
host has that queues work for its device, reads samples and writes logs. The ranks exchange nothing
but the agreement. Beside the measured ranks stands a simulation, also of --simulated ranks: gloo
passes the sum around a ring, in 2 (n - 1) messages one after the other.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import ranks
from benchmarks.figures import command, machine, rows, save, table
from engines.world import open_world
from training.agreement import Agreed, agree_later

CONTENDERS = {"nothing": None, "before each step": False, "a step ahead": True}
"""Whether the agreement starts a step ahead; None: there is none."""


def rounds_of_messages(size: int) -> int:
    """Messages that follow each other in gloo's sum over a ring of `size` ranks."""
    return 2 * (size - 1)


def train(options: argparse.Namespace) -> None:
    """Run a rank; rank 0 writes its seconds per step. Does not return."""
    is_ahead = CONTENDERS[options.contender]
    world = open_world("cpu", 60.0, always_group=False)
    draws = random.Random(world.rank)
    world.barrier()
    began = time.perf_counter()
    result: Callable[[], Agreed] | None = None
    for _ in range(options.steps):
        if is_ahead is not None:
            (result or agree_later(world, {"": 1}, 0))()
        if is_ahead:
            result = agree_later(world, {"": 1}, 0)
        late_ms = options.late_ms if draws.random() < 1 / world.size else 0.0
        time.sleep((options.step_ms + late_ms) / 1000)
    if world.rank == 0:
        options.result.write_text(repr((time.perf_counter() - began) / options.steps))
    world.barrier()
    os._exit(0)


def simulated(
    size: int, is_ahead: bool | None, message_s: float, options: argparse.Namespace
) -> float:
    """Mean seconds per step of `size` ranks; a message takes `message_s`."""
    draws = np.random.default_rng(0)
    latency = rounds_of_messages(size) * message_s
    ready = started = np.zeros(size)  # [rank]: the end of the last step, and its start
    for _ in range(options.steps):
        begin = ready
        if is_ahead is not None:
            joined = (started if is_ahead else ready).max() + latency
            begin = np.maximum(ready, joined)
        late = (draws.random(size) < 1 / size) * options.late_ms
        started, ready = begin, begin + (options.step_ms + late) / 1000
    return float(ready.mean()) / options.steps


def main() -> None:
    """Measure, simulate, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--simulated", type=int, default=256, help="ranks")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--late-ms", type=float, default=50.0)
    parser.add_argument("--message-us", type=float, default=50.0, help="of a simulated message")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.device, options.threads = "cpu", 1
    if options.contender:
        train(options)
    measured = []
    for number in range(options.rounds):
        taken = {c: ranks.seconds_of("benchmarks.agreement", c, options) for c in CONTENDERS}
        for size in (options.processes, options.simulated):
            for contender, is_ahead in CONTENDERS.items():
                seconds = simulated(size, is_ahead, options.message_us / 1e6, options)
                taken[f"{contender}, {size} simulated"] = seconds
        measured.append(taken)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    result = rows(measured, "nothing")
    facts = machine(("torch",))
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    for size in (options.processes, options.simulated):
        print(f"{size} ranks: {rounds_of_messages(size)} messages, one after the other")
    print(table(result))
    save(options.json, command("agreement", sys.argv[1:]), facts, {"agreement": result})


if __name__ == "__main__":
    main()
