"""What does the plan cost that the first start of a run makes?

    python -m benchmarks.plan_start
    python -m benchmarks.plan_start --models language:tiny --rounds 3

From the command to the first line of metrics, which is that of the first step: without a cached
plan, so that the run makes one beside its start, and with it. Both follow each other in each round.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from benchmarks.figures import command, listed, machine, save_rows
from benchmarks.startup import seconds_until_line
from launcher.plan import cache
from models.catalog import FAMILIES
from models.common import cache_folder

MODELS = tuple(f"{family}:tiny" for family in FAMILIES)


@dataclass(frozen=True)
class Row:
    """Medians over rounds, in seconds to the first step."""

    model: str
    with_plan: float
    """The start makes the plan."""
    without: float
    """The plan is in the cache."""
    cost: float
    """Of the differences of each round."""
    rounds: int


def measure(model: str, rounds: int, folder: Path) -> Row:
    """Start `model` with and without a cached plan; `folder` gets the cache."""
    plans, kept = folder / cache.PLANS, folder / "kept"
    with_plan, without = [], []
    with patch.dict(os.environ, {cache_folder.VARIABLE: str(folder)}):
        words = [sys.executable, "-m", "launcher", "plan", *_options(model)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        plans.rename(kept)
        for number in range(-1, rounds):  # round -1 makes the data and fills the file cache
            first = _seconds_to_first_step(model)
            shutil.rmtree(plans, ignore_errors=True)
            shutil.copytree(kept, plans)
            later = _seconds_to_first_step(model)
            if sorted(os.listdir(plans)) != sorted(os.listdir(kept)):
                raise RuntimeError(f"the later start of {model} did not take the plan")
            shutil.rmtree(plans)
            if number >= 0:
                with_plan.append(first)
                without.append(later)
    differences = [first - later for first, later in zip(with_plan, without, strict=True)]
    return Row(
        model,
        statistics.median(with_plan),
        statistics.median(without),
        statistics.median(differences),
        rounds,
    )


def _seconds_to_first_step(model: str) -> float:
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        words = [sys.executable, "-m", "launcher", *_options(model), "--out", str(run)]
        return seconds_until_line(words, run / "metrics.jsonl")


def _options(model: str) -> list[str]:
    return ["--model", model, "--engine", "local", "--set", "log.every=1"]


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| model | first start | later start | cost |", "|---|---:|---:|---:|"]
    for row in rows:
        lines.append(
            f"| `{row.model}` | {row.with_plan:.1f} s | {row.without:.1f} s | {row.cost:+.1f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=[*MODELS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    facts, found = machine(("torch",)), []
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measure(model, options.rounds, Path(folder)))
        print(table(found[-1:]).splitlines()[2], file=sys.stderr, flush=True)
        if options.json:
            save_rows(options.json, command("plan_start", sys.argv[1:]), facts, found)
    print(f"{listed(facts)}\n{table(found)}")


if __name__ == "__main__":
    main()
