"""How many CPU seconds until `plan` of a large language model prints its plan, and until it ends?

    python -m benchmarks.plan_cpu --layout Qwen/Qwen3-8B --gpu "RTX 4090"

The folder has the configuration and a tokenizer, without weights. Seconds are those of the user and
the system, of the process and its children: waits and other programs do not count.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import transformers

from benchmarks.figures import listed, machine, markdown
from benchmarks.fits import LAYOUTS, SMOKE
from benchmarks.lora import save_tokenizer

VERDICTS = ("fits", "needs", "does not fit")


def cpu_seconds(process: psutil.Popen) -> float:
    """Of a process that runs, and of its children that ended."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def measure(arguments: list[str]) -> list[tuple[str, float]]:
    """What a plan printed, with the seconds until then: its verdict, its rungs, and the last line.

    Raises RuntimeError if it failed.
    """
    found = []
    process = psutil.Popen(arguments, stdout=subprocess.PIPE, text=True)
    last = 0.0
    for line in process.stdout:
        last = cpu_seconds(process)
        if line.startswith(VERDICTS):
            found.append(("the plan as given", last))
        elif line.startswith("> "):
            found.append((f"the ladder, to {line[2:].strip().rstrip(':')}", last))
    if process.wait() != 0:
        raise RuntimeError(f"{shlex.join(arguments)} failed")
    return found or [("the end", last)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layout", default="meta-llama/Llama-3.1-8B-Instruct", choices=LAYOUTS)
    parser.add_argument("--gpu", default="RTX 4090")
    parser.add_argument("--smoke", action="store_true", help="a tiny layout")
    options = parser.parse_args()
    name, layout = options.layout, LAYOUTS[options.layout]
    if options.smoke:
        ((name, layout),) = SMOKE.items()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / name
        folder.mkdir(parents=True)
        save_tokenizer(folder)
        transformers.AutoConfig.for_model(**layout).save_pretrained(folder)
        command = [sys.executable, "-m", "launcher", "plan", "--model", "language"]
        command += ["--set", f"model.pretrained={folder}", "--gpu", options.gpu]
        rows = [(what, f"{seconds:.1f}") for what, seconds in measure(command)]
    print(listed(machine(("torch", "transformers"))))
    print(*markdown([f"{name} on {options.gpu}", "CPU seconds"], rows), sep="\n")


if __name__ == "__main__":
    main()
