"""How long is a step beside another busy program, with Gearshift's thread wait and with GNU's?

    python -m benchmarks.busy_machine --steps 8

Threads of one process that wait for each other may spin or sleep. GNU's OpenMP spins 300,000 times
by default; `launcher/run/affinity.py` sets 1,000. Source: GNU libgomp,
GOMP_SPINCOUNT.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import machine

SPINS = {"GNU's default": "300000", "ours": "1000"}


def step_seconds(size: str, spins: str, steps: int) -> float:
    """The mean time of the last logged steps of the language family on two threads or more."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "launcher", "--model", f"language:{size}"]
        command += ["--max-steps", str(steps), "--out", str(out)]
        for setting in ("device=cpu", "eval.share=0.01", "eval.every=null", "train.preview=false"):
            command += ["--set", setting]
        environment = os.environ | {"GOMP_SPINCOUNT": spins}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        train = [line for line in map(json.loads, lines) if line["kind"] == "train"]
        return float(train[-1]["step_time_s"])


def main() -> None:
    """Measure each thread wait without and with one busy process."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="small", help="size of the language family")
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    print(" · ".join(f"{key} {value}" for key, value in machine(["torch"]).items()))
    print("| waiting | ms/step alone | ms/step beside a busy program |\n|---|---:|---:|")
    for name, spins in SPINS.items():
        alone = step_seconds(options.size, spins, options.steps)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside = step_seconds(options.size, spins, options.steps)
        finally:
            busy.kill()
            busy.wait()
        print(f"| {name} | {alone * 1e3:.0f} | {beside * 1e3:.0f} |", flush=True)


if __name__ == "__main__":
    main()
