"""How much slower are the engines than hand-written DDP, fully_shard and deepspeed.initialize?

    python -m benchmarks.engines_overhead --processes 2 --rounds 5

Every contender trains the same model on the same text, in processes of its own that torchrun
starts, one contender after the other in each round. Each engine of ours is held against the same
thing by hand.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.clock import StepClock
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import ours
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work

PACKAGES = ("torch", "deepspeed")
SIDES = ("raw", "ours")
ENGINES = ("ddp", "fsdp", "zero2")


def run_contender(options: argparse.Namespace) -> None:
    """Run one rank of a contender; rank 0 writes its seconds per step to a file. Never returns."""
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    work = Work(
        *(options.size, options.micro_batch, options.steps),
        device=options.device,
        rank=rank,
        world_size=world_size,
        threads=options.threads,
    )
    side, engine = options.contender.split(":")
    with StepClock(options.warmup, work.steps, work.device) as clock:
        if side == "raw":
            RAW[engine](work)
        else:
            ours(work, engine)
    if rank == 0:
        options.result.write_text(repr(clock.seconds_per_step))
    # PyTorch 2.13's gloo threads abort the process in about one exit of ten: leave without them.
    os._exit(0)


def measure_contender(options: argparse.Namespace, contender: str) -> float:
    """Start the ranks of `contender` with these options; its seconds per step."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds"
        arguments = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        arguments += [
            "--nproc-per-node",
            str(options.processes),
            "-m",
            "benchmarks.engines_overhead",
        ]
        arguments += [*sys.argv[1:], "--contender", contender, "--result", str(result)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        if options.device == "cpu":
            environment["DS_ACCELERATOR"] = "cpu"
        done = subprocess.run(
            arguments, capture_output=True, text=True, env=environment, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{contender} failed:\n{done.stdout[-2000:]}{done.stderr[-8000:]}")
        return float(result.read_text())


def measure(options: argparse.Namespace, engine: str) -> list[dict[str, float]]:
    """Seconds per step of both sides in every round; the first one changes from round to round."""
    measured = []
    for number in range(options.rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        seconds = {side: measure_contender(options, f"{side}:{engine}") for side in order}
        measured.append({f"{side} {engine}": seconds[side] for side in SIDES})
        print(f"{engine}: round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    return measured


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--engines", nargs="*", default=ENGINES, choices=ENGINES)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=16, help="samples of one rank")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--warmup", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of one rank")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run_contender(options)

    result = []
    for engine in options.engines:
        result += rows(measure(options, engine), f"raw {engine}")
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"language:{options.size}, {options.processes} processes of {options.threads} threads, "
        f"micro-batch {options.micro_batch}, {options.rounds} rounds"
    )
    print("\n".join(table(result)))
    save(options.json, command("engines_overhead", sys.argv[1:]), facts, {"engines": result})


if __name__ == "__main__":
    main()
