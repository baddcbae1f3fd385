"""The ranks of one contender: their arguments, their work and their measurements."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.clock import StepClock
from benchmarks.workload import Work


def add_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options of a step benchmark: the work, the ranks, and the number of rounds."""
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=16, help="samples of one rank")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--warmup", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="of one rank")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)


def run_contender(options: argparse.Namespace, train: Callable[[Work], object]) -> None:
    """Run one rank of a contender; rank 0 writes its seconds per step to a file.

    `train` does the work. Does not return.
    """
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(options.threads)
    if options.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    work = replace(work_of(options), rank=rank, world_size=world_size)
    with StepClock(options.warmup, work.steps, work.device) as clock:
        train(work)
    if rank == 0:
        options.result.write_text(repr(clock.seconds_per_step))
    # PyTorch 2.13's gloo threads abort the process in about one exit of ten: leave without them.
    os._exit(0)


def work_of(options: argparse.Namespace) -> Work:
    """The work of each contender."""
    return Work(
        options.size, options.micro_batch, options.steps, device=options.device, threads=options.threads
    )


def seconds_of(module: str, contender: str, options: argparse.Namespace) -> float:
    """The result file of rank 0 of `module`, started with these options and `--contender`.

    `options` have the number of processes and threads, and the device. Raises RuntimeError with
    the output of the ranks.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "seconds"
        arguments = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        arguments += ["--nproc-per-node", str(options.processes), "-m", module]
        arguments += [*sys.argv[1:], "--contender", contender, "--result", str(result)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        if options.device == "cpu":
            environment["DS_ACCELERATOR"] = "cpu"
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{contender} failed:\n{done.stdout[-2000:]}{done.stderr[-8000:]}")
        return float(result.read_text())
