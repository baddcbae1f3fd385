"""Does AdamW with its state in 16 or 8 bits reach the loss of one in fp32?

    python -m benchmarks.state_quality --json benchmarks/results/state_quality.json
    python -m benchmarks.state_quality --smoke      # a tiny model, five steps

The same training with each `optim.state`, with three seeds; the loss on the validation split after
the last step. Load of the machine changes no figure.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import launcher
from benchmarks.figures import command, listed, machine, save_rows

STATES = ("fp32", "bf16", "int8")
SEEDS = (0, 1, 2)
MODEL, STEPS = "language:small", 500
SETTINGS = {"train.global_batch": 8, "data.seq_len": 64}


@dataclass(frozen=True)
class Row:
    """One seed: the loss with each state."""

    seed: int
    fp32: float
    bf16: float
    int8: float

    @property
    def farthest(self) -> float:
        """The largest distance from fp32, relative to it."""
        return max(abs(loss / self.fp32 - 1) for loss in (self.bf16, self.int8))


def measure(model: str, steps: int, seed: int, folder: Path) -> Row:
    """Train with each state; the runs go into `folder`."""
    losses = {}
    for state in STATES:
        chosen = {"optim.state": state, "train.seed": seed, "train.max_steps": steps}
        chosen |= {"report.enabled": False, "train.preview": False, "save.last": False}
        settings = {**SETTINGS, **chosen}
        out = folder / f"{state}-{seed}"
        run = launcher.train(model, settings=settings, out=out, console=False)
        losses[state] = run.metrics("eval")[-1]["metrics"]["val_loss"]
        print(f"seed {seed}, {state}: {losses[state]:.4f}", file=sys.stderr, flush=True)
    return Row(seed, **losses)


def table(rows: Sequence[Row]) -> str:
    """The losses as a Markdown table."""
    lines = [f"| seed | {' | '.join(STATES)} | farthest from fp32 |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        losses = " | ".join(f"{getattr(row, state):.4f}" for state in STATES)
        lines.append(f"| {row.seed} | {losses} | {row.farthest:.1%} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and save it with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="language:tiny, five steps, one seed")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    model, steps = ("language:tiny", 5) if given.smoke else (MODEL, STEPS)
    seeds = SEEDS[:1] if given.smoke else SEEDS
    facts = machine(["torch"])
    with tempfile.TemporaryDirectory(prefix="gearshift-benchmark-") as folder:
        rows = [measure(model, steps, seed, Path(folder)) for seed in seeds]
    print(f"{model}, {steps} steps. {listed(facts)}")
    print(table(rows))
    if given.json is not None:
        save_rows(given.json, command("state_quality", sys.argv[1:]), facts, rows)


if __name__ == "__main__":
    main()
