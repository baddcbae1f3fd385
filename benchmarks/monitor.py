"""What monitoring the machine costs: CPU time of one reading, and its share of a core.

    python -m benchmarks.monitor

Each round takes readings one after the other, as the monitor's thread takes one an interval, and
counts the processor time of this process. Exits 1 where at the shortest interval of a mode or
profile it takes more than a thousandth of a core.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.figures import command, machine, quartiles, save_rows
from training.resources.monitor import ResourceReader

INTERVALS_S = (5, 10, 15, 30)
"""The intervals of cpu-only, mac, resource-efficient and default."""
MOST = 0.001
"""Maximum share of a core."""


@dataclass(frozen=True)
class Row:
    """CPU time of a reading over rounds, and its share at an interval."""

    interval_s: int
    reading_ms: float
    low_ms: float
    high_ms: float
    share: float
    """Share of one core."""
    readings: int


def measure(device: torch.device, rounds: int, readings: int) -> list[Row]:
    """Take `rounds` times `readings`; a row for each of INTERVALS_S."""
    with tempfile.TemporaryDirectory() as folder:
        reader = ResourceReader(device, Path(folder))
        reader.read()  # cached lookups happen here
        taken = []
        for _ in range(rounds):
            began = time.process_time()
            for _ in range(readings):
                reader.read()
            taken.append(1e3 * (time.process_time() - began) / readings)
    middle = statistics.median(taken)
    low, high = quartiles(taken)
    return [Row(s, middle, low, high, middle / 1e3 / s, rounds * readings) for s in INTERVALS_S]


def table(rows: Sequence[Row]) -> str:
    """The cost at each interval as a Markdown table."""
    lines = [
        "| a reading every | processor time of one | quartiles | of a core |",
        "|---|---:|---:|---:|",
    ]
    lines += [
        f"| {row.interval_s} s | {row.reading_ms:.2f} ms | {row.low_ms:.2f} - {row.high_ms:.2f} "
        f"| {100 * row.share:.4f} % |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--readings", type=int, default=100, help="in each round")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.ones(1, device=device)
    rows = measure(device, options.rounds, options.readings)
    facts = machine(("torch", "psutil")) | {"device": options.device}
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(table(rows))
    if options.json:
        save_rows(options.json, command("monitor", sys.argv[1:]), facts, rows)
    return int(max(row.share for row in rows) > MOST)


if __name__ == "__main__":
    sys.exit(main())
