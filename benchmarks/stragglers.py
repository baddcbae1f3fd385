"""What does straggler detection cost?

    python -m benchmarks.stragglers --processes 2 --rounds 9

The same training, in processes of its own each time, with `log.stragglers` and without, one after
the other in each round; at every logged step ranks exchange two numbers. `--log-every 1`
is the worst case.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from benchmarks import ranks
from benchmarks.figures import command, machine, rows, save, table
from benchmarks.ours import ours
from benchmarks.workload import Work

CONTENDERS = {"off": None, "on": 1.5}


def train(options: argparse.Namespace, work: Work) -> None:
    """Run a rank of the contender."""
    check_every = CONTENDERS[options.contender]
    ours(work, options.engine, {"log.every": options.log_every, "log.stragglers": check_every})


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--engine", default="ddp", choices=["ddp", "fsdp", "zero2", "zero3"])
    parser.add_argument("--log-every", type=int, default=10)
    ranks.add_options(parser, rounds=9)
    options = parser.parse_args()
    if options.contender:
        ranks.run_contender(options, partial(train, options))
        return

    measured = []
    for number in range(options.rounds):
        names = list(CONTENDERS)[:: 1 if number % 2 == 0 else -1]
        found = {name: ranks.seconds_of("benchmarks.stragglers", name, options) for name in names}
        measured.append({name: found[name] for name in CONTENDERS})
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    result = rows(measured, "off")
    facts = machine(("torch",))
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(
        f"language:{options.size}, {options.engine}, {options.processes} processes of "
        f"{options.threads} threads, a line each {options.log_every} steps, {options.rounds} rounds"
    )
    print(table(result))
    save(options.json, command("stragglers", sys.argv[1:]), facts, {"stragglers": result})


if __name__ == "__main__":
    main()
