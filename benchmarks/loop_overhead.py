"""How much slower is the training loop than a bare one, and how much are those of others?

    python -m benchmarks.loop_overhead --size tiny --rounds 15

Every contender trains the same model on the same batches with the same optimizer, schedule and
clipping, one after the other in each round, in one process, and must come to the same weights.
Gearshift runs with all defaults of a run (metrics, events, log, progress, checks on the loss);
the others with a minimum.
"""

from __future__ import annotations

import argparse
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.clock import StepClock
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import ours
from benchmarks.peers import PEERS
from benchmarks.workload import Work

REFERENCE = "bare PyTorch"
PACKAGES = ("torch", "accelerate", "lightning", "transformers")


Contender = Callable[[Work], torch.nn.Module]
"""Train `work`; the trained model."""


def measure(
    contenders: Mapping[str, Contender], work: Work, warmup: int, rounds: int
) -> list[dict[str, float]]:
    """Seconds per step of every contender in every round; the order changes from round to round."""
    names = list(contenders)
    measured = []
    losses: dict[str, float] = {}
    for number in range(-1, rounds):  # round -1 fills caches and is thrown away
        seconds = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            gc.collect()
            torch.set_num_threads(work.threads)
            with StepClock(warmup, work.steps, work.device) as clock:
                model = contenders[name](work)
            seconds[name] = clock.seconds_per_step
            if number < 0:
                losses[name] = work.final_loss(model)
        if number >= 0:
            measured.append({name: seconds[name] for name in names})
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    check_equal_work(losses)
    return measured


def check_equal_work(losses: Mapping[str, float]) -> None:
    """Print the loss of each trained model; raises RuntimeError if one differs."""
    print("loss after training: " + ", ".join(f"{n} {x:.7f}" for n, x in losses.items()))
    for name, loss in losses.items():
        if abs(loss - losses[REFERENCE]) > 1e-5 * losses[REFERENCE]:
            raise RuntimeError(f"{name} ends at loss {loss}, not at {losses[REFERENCE]}")


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=None)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--warmup", type=int, default=20, help="steps that are not measured")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="*", help="names of contenders, beside the reference")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    work = Work(
        options.size,
        options.micro_batch,
        options.steps,
        seq_len=options.seq_len,
        device=options.device,
        threads=options.threads,
    )
    contenders: dict[str, Contender] = {**PEERS, "Gearshift": ours}
    if options.only is not None:
        contenders = {n: c for n, c in contenders.items() if n in (REFERENCE, *options.only)}
    result = rows(measure(contenders, work, options.warmup, options.rounds), REFERENCE)

    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"language:{work.size}, micro-batch {work.micro_batch}, {work.seq_len or 'full'} tokens, "
        f"{options.steps} steps, {options.warmup} of them warm-up, {options.rounds} rounds"
    )
    print("\n".join(table(result)))
    save(options.json, command("loop_overhead", sys.argv[1:]), facts, {"loop": result})


if __name__ == "__main__":
    main()
