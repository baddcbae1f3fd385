"""How long does it take from the command to the first step, compared with a bare script?

    python -m benchmarks.startup --rounds 7

Both do the first step of the same model on the same text. The bare script imports PyTorch, reads
the text, builds, steps and writes a line; ours is the whole command, which writes its first line
of metrics. The clock stops when that line is on disk.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.figures import command, machine, rows, save, table

PACKAGES = ("torch",)
PATIENCE_S = 120
POLL_EVERY_S = 0.002

BARE = """
import sys
from pathlib import Path
from benchmarks.peers import bare
from benchmarks.workload import Work
bare(Work({size!r}, 16, 1))
Path(sys.argv[1]).write_text("stepped")
"""


def seconds_until_line(arguments: list[str], file: Path) -> float:
    """Start a command and return the seconds until `file` has content; then end it."""
    begin = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while not (file.exists() and file.stat().st_size):
        if process.poll() not in (None, 0) or time.perf_counter() - begin > PATIENCE_S:
            process.kill()
            stderr = process.communicate()[1].decode(errors="replace")
            raise RuntimeError(f"{shlex.join(arguments)} took no step:\n{stderr[-4000:]}")
        time.sleep(POLL_EVERY_S)
    seconds = time.perf_counter() - begin
    process.kill()
    process.communicate()
    return seconds


def measure_round(size: str, folder: Path) -> dict[str, float]:
    """Measure both contenders once."""
    line, run = folder / "line", folder / "run"
    bare = [sys.executable, "-c", BARE.format(size=size), str(line)]
    ours = [sys.executable, "-m", "launcher", "--model", f"language:{size}", "--engine", "local"]
    ours += ["--max-steps", "1", "--batch-size", "16", "--out", str(run)]
    ours += ["--set", "log.every=1", "--set", "train.accumulation=1", "--precision", "fp32"]
    return {
        "bare script": seconds_until_line(bare, line),
        "Gearshift": seconds_until_line(ours, run / "metrics.jsonl"),
    }


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="tiny", help="size of the language family")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    measured = []
    for number in range(-1, options.rounds):  # round -1 fills the file cache, thrown away
        with tempfile.TemporaryDirectory() as folder:
            seconds = measure_round(options.size, Path(folder))
        if number >= 0:
            measured.append(seconds)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    result = rows(measured, "bare script")

    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(f"language:{options.size}, first step of 16 samples, {options.rounds} rounds")
    print("\n".join(table(result, unit="ms to the first step")))
    save(options.json, command("startup", sys.argv[1:]), facts, {"startup": result})


if __name__ == "__main__":
    main()
