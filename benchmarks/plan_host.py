"""How far is the predicted peak of a process in host memory from that of the run?

    python -m benchmarks.plan_host
    python -m benchmarks.plan_host --models language:small

Runs of a few steps on a CPU, each with and without `memory.return_freed`: without it, the heap of
glibc keeps freed blocks. Other engines than local train on two ranks. Predicted by the command
`plan`, measured in result.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.figures import command, listed, machine, markdown, save_rows

STEPS = 4
MODELS = {
    "language:small": (),
    "language:full": ("data.seq_len=512", "train.global_batch=4"),
    "language:124M": ("data.seq_len=128", "train.global_batch=4"),
    "event_seg:lite": (),
    "abr:lite": (),
    "doc_translation:tiny": (),
    "eeg_text:lite": ("train.global_batch=2",),
}
"""And what their steps are: few and short samples, to measure a large model in a minute."""
ENGINES = ("local", "ddp", "oss", "zero2", "zero3", "fsdp")
_ALWAYS = (
    "loader.workers=0",
    "eval.last=false",
    "save.last=false",
    "train.preview=false",
    "track=[]",
)


@dataclass(frozen=True)
class Row:
    """Predicted and measured peak of a process, in bytes."""

    model: str
    engine: str
    sets: Sequence[str]
    return_freed: bool
    predicted: int
    measured: int
    steps: int

    @property
    def error(self) -> float:
        """By how much the prediction is too high, relative to the measured peak."""
        return self.predicted / self.measured - 1


def measure(model: str, engine: str, *, return_freed: bool, steps: int) -> Row:
    """Train `steps` steps. Raises SystemExit if a command fails."""
    ranks = 1 if engine == "local" else 2
    freed = f"memory.return_freed={str(return_freed).lower()}"
    sets = [*MODELS[model], *_ALWAYS, freed, f"stop.after={steps}"]
    words = ["--model", model, "--engine", engine, "--nproc", str(ranks)]
    for text in sets:
        words += ["--set", text]
    predicted = json.loads(_launch("plan", *words, "--json"))["host_peak_bytes"] // ranks
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        _launch("run", *words, "--out", str(out))
        result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    measured = result["peak_memory_bytes"]["host"]
    return Row(model, engine, MODELS[model], return_freed, predicted, measured, steps)


def _launch(*words: str) -> str:
    line = [sys.executable, "-m", "launcher", *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return done.stdout


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as the lines of a Markdown table."""
    found = []
    for row in rows:
        sizes = (f"{size / 1e6:,.0f}" for size in (row.predicted, row.measured))
        freed = "on" if row.return_freed else "off"
        name = "".join([f"`{row.model}`", *(f" `{text}`" for text in row.sets)])
        found.append([name, row.engine, freed, *sizes, f"{row.error:+.1%}"])
    heads = ["model", "engine", "`return_freed`", "predicted MB", "measured MB", "error"]
    return markdown(heads, found, numbers=3)


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=["local"])
    parser.add_argument("--steps", type=int, default=STEPS, help="of each run")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    facts, found = machine(("torch",)), []
    for model, engine, freed in product(options.models, options.engines, (False, True)):
        found.append(measure(model, engine, return_freed=freed, steps=options.steps))
        print(table(found[-1:])[2], file=sys.stderr, flush=True)
        if options.json:
            save_rows(options.json, command("plan_host", sys.argv[1:]), facts, found)
    print(listed(facts), *table(found), sep="\n")


if __name__ == "__main__":
    main()
