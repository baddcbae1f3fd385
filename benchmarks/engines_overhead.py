"""How much slower are the engines than hand-written DDP, fully_shard and deepspeed.initialize?

    python -m benchmarks.engines_overhead --processes 2 --rounds 5

Both contenders train the same model on the same text, in processes of their own that torchrun
starts, and take turns of some steps: one stands still while the other trains. Each engine of ours
is held against the same thing by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.clock import SETTLING, StepClock, Turns
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import ours
from benchmarks.peers import LOG_EVERY
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work

PACKAGES = ("torch", "deepspeed")
SIDES = ("raw", "ours")
ENGINES = ("ddp", "fsdp", "zero2")
_LIMIT_S = 300.0
"""The longest start of a contender."""
_TURN_S = 30.0
"""The longest turn."""


def run_contender(options: argparse.Namespace) -> None:
    """Run one rank of a contender; rank 0 writes its seconds per step to a file. Never returns."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    work = Work(
        options.size,
        options.micro_batch,
        steps=options.warmup + options.turns * (LOG_EVERY + SETTLING),
        device=options.device,
        rank=rank,
        world_size=world_size,
        threads=options.threads,
    )
    side, engine = options.contender.split(":")
    clock = StepClock(options.warmup, work.steps, work.device)
    turns: Turns | None = None
    if rank == 0:  # the other ranks wait for it
        other = SIDES[1 - SIDES.index(side)]
        pipes = (options.folder / side, options.folder / other)
        turns = Turns(pipes, clock, options.warmup, LOG_EVERY)
        clock.after = turns
    with clock:
        if side == "raw":
            RAW[engine](work)
        else:
            ours(work, engine)
    if turns is not None:
        (options.folder / f"{side}.json").write_text(json.dumps(turns.seconds))
        turns.end()  # the other program has waited, so that this one could end
    # PyTorch 2.13's gloo threads abort the process in about one exit of ten: leave without them.
    os._exit(0)


def measure(options: argparse.Namespace, engine: str) -> list[dict[str, float]]:
    """Seconds per step of both sides in each of their turns."""
    measured = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    if options.device == "cpu":
        environment["DS_ACCELERATOR"] = "cpu"
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for side in SIDES:
                os.mkfifo(folder / side)
            started = [start(options, f"{side}:{engine}", folder, environment) for side in SIDES]
            try:
                for side, process in zip(SIDES, started, strict=True):
                    if process.wait(_LIMIT_S + options.turns * _TURN_S):
                        log = (folder / f"{side}.log").read_text()
                        raise RuntimeError(f"{side} {engine} failed:\n{log[-8000:]}")
            finally:
                for process in started:
                    process.terminate()
            seconds = [json.loads((folder / f"{side}.json").read_text()) for side in SIDES]
        for turn in zip(*seconds, strict=True):
            measured.append({f"{side} {engine}": x for side, x in zip(SIDES, turn, strict=True)})
        print(f"{engine}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return measured


def start(
    options: argparse.Namespace, contender: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start the ranks of `contender`, which leave a log and the seconds of turns in `folder`."""
    side = contender.partition(":")[0]
    arguments = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments += ["--nproc-per-node", str(options.processes), "-m", "benchmarks.engines_overhead"]
    arguments += [*sys.argv[1:], "--contender", contender, "--folder", str(folder)]
    with open(folder / f"{side}.log", "wb") as log:
        return subprocess.Popen(
            arguments,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=16, help="samples of one rank")
    parser.add_argument("--turns", type=int, default=10, help=f"of {LOG_EVERY} steps, in a round")
    parser.add_argument("--warmup", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--rounds", type=int, default=3, help="starts of both")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of one rank")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run_contender(options)

    facts = machine(PACKAGES)
    result = []
    for engine in options.engines:
        result += rows(measure(options, engine), f"raw {engine}")
        # A later engine that fails loses nothing.
        save(options.json, command("engines_overhead", sys.argv[1:]), facts, {"engines": result})
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"language:{options.size}, {options.processes} processes of {options.threads} threads, "
        f"micro-batch {options.micro_batch}, {options.rounds} rounds of {options.turns} turns"
    )
    print("\n".join(table(result)))


if __name__ == "__main__":
    main()
