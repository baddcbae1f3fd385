"""How much slower are the engines than hand-written DDP, fully_shard and deepspeed.initialize?

    python -m benchmarks.engines_overhead --processes 2 --rounds 5

Every contender trains the same model on the same text, in processes of its own that torchrun
starts, one contender after the other in each round. Each engine of ours is held against the same
thing by hand.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from benchmarks import ranks
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import ours
from benchmarks.raw_engines import RAW
from benchmarks.workload import Work

PACKAGES = ("torch", "deepspeed")
SIDES = ("raw", "ours")
ENGINES = ("ddp", "fsdp", "zero2")


def train(contender: str, work: Work) -> None:
    """Run a rank of the contender."""
    side, engine = contender.split(":")
    if side == "raw":
        RAW[engine](work)
    else:
        ours(work, engine)


def measure_contender(options: argparse.Namespace, contender: str) -> float:
    """Start the ranks of `contender`; its seconds per step."""
    return ranks.seconds_of("benchmarks.engines_overhead", contender, options)


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
    ranks.add_options(parser, rounds=5)
    options = parser.parse_args()
    if options.contender:
        ranks.run_contender(options, partial(train, options.contender))
        return

    result = []
    for engine in options.engines:
        result += rows(measure(options, engine), f"raw {engine}")
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"language:{options.size}, {options.processes} processes of {options.threads} threads, "
        f"micro-batch {options.micro_batch}, {options.rounds} rounds"
    )
    print(table(result))
    save(options.json, command("engines_overhead", sys.argv[1:]), facts, {"engines": result})


if __name__ == "__main__":
    main()
