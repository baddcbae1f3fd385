"""How far is the time that `plan --measure` predicts from that of the run?

    python -m benchmarks.plan_time                       # 20 runs
    python -m benchmarks.plan_time --smoke               # one of them, with fewer steps

Each run is planned with three measured steps and then taken, in processes of its own. Its time is
from the start of its process to the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import command, listed, machine, save_rows

ROOT = Path(__file__).parents[1]
STEPS = 60
WITHIN = 0.2
"""The greatest error that counts as a hit."""
NOT_MEASURED = ["not measured"]
_TWO = ("--nproc", "2")
_MODES = ("default", "fast", "lite")
_ENGINES = (("ddp", _TWO), ("fsdp", _TWO), ("zero2", _TWO))
CASES = (
    *((f"{family}:tiny", mode, "local", ())
      for family in ("language", "event_seg", "abr", "doc_translation", "eeg_text")
      for mode in _MODES),
    *(("language:tiny", "default", engine, more) for engine, more in _ENGINES),
    ("event_seg:tiny", "default", "ddp", _TWO),
    ("abr:tiny", "default", "ddp", _TWO),
)  # fmt: skip
"""Model, mode, engine and further arguments."""


@dataclass(frozen=True)
class Row:
    """A run and its prediction, in seconds."""

    model: str
    mode: str
    engine: str
    steps: int
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """The prediction over the measured time, less 1."""
        return self.predicted_s / self.measured_s - 1


def measure(case: tuple[str, str, str, Sequence[str]], steps: int) -> Row:
    """The prediction and the time of a run. Raises SystemExit if it fails."""
    model, mode, engine, more = case
    given = [*("--model", model, "--mode", mode, "--engine", engine), *more]
    given += ["--max-steps", str(steps)]
    planned = json.loads(_launch(["plan", *given, "--measure", "--json"]))
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        _launch([*given, "--out", str(Path(folder) / "run"), "--json"])
        measured_s = time.monotonic() - began
    return Row(model, mode, engine, planned["steps"], planned["seconds"]["run"], measured_s)


def _launch(arguments: Sequence[str]) -> str:
    line = [sys.executable, "-m", "launcher", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}{done.stdout}")
    return done.stdout


def rows(cases: Sequence[tuple[str, str, str, Sequence[str]]], steps: int) -> Iterator[Row]:
    """A row for each case, as it is measured."""
    for case in cases:
        yield measure(case, steps)


def table(found: Sequence[Row]) -> str:
    """The rows as a Markdown table, and how many are within 20 %."""
    lines = ["| model | mode | engine | steps | predicted | measured | error |"]
    lines += ["|---|---|---|---:|---:|---:|---:|"]
    lines += [
        f"| {row.model} | {row.mode} | {row.engine} | {row.steps} | {row.predicted_s:.1f} s "
        f"| {row.measured_s:.1f} s | {row.error:+.0%} |"
        for row in found
    ]
    hits = sum(abs(row.error) <= WITHIN for row in found)
    return "\n".join([*lines, f"| within {WITHIN:.0%} | | | | | | {hits} of {len(found)} |"])


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="one case, with fewer steps")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    facts = machine(("torch",))
    found = list(rows(CASES[:1], 8) if options.smoke else rows(CASES, STEPS))
    if options.json:
        save_rows(options.json, command("plan_time", sys.argv[1:]), facts, found)
    print(f"{listed(facts)}\n{table(found)}")


if __name__ == "__main__":
    main()
