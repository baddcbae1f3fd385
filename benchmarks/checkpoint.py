"""How long does training wait for a save, how long does a load take, and in how much memory?

    python -m benchmarks.checkpoint
    python -m benchmarks.checkpoint --smoke              # the same code on a tiny model

Every way saves the same model with the same AdamW state and loads it, both twice, in a
process of its own, one after the other in each round. Files are read from the page cache.
Gearshift's and DCP's files are synced to disk before they count as saved, others are not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psutil
import torch

from benchmarks.checkpoint_peers import COPIES, WAYS
from benchmarks.figures import Memory, command, machine, memory_table, rows, save, table
from benchmarks.workload import Work

PACKAGES = ("torch", "deepspeed", "safetensors")
NUM_SAVES, NUM_LOADS = 2, 2
REFERENCE = "plain copy"
TABLES = {
    "first": ("blocked by the first save", "ms blocked", tuple(WAYS)),
    "later": ("blocked by a later save", "ms blocked", tuple(WAYS)),
    "load": ("load into the live tensors", "ms", tuple(w for w in WAYS if w not in COPIES)),
}
"""A measurement: title, unit and contenders."""
_POLL_EVERY_S = 0.002


class Peak:
    """The largest number of bytes so far; 0: none was read."""

    bytes = 0


@contextmanager
def resident_peak() -> Iterator[Peak]:
    """Peak resident memory of this process above that at the start; mapped files count."""
    process, over, found = psutil.Process(), Event(), Peak()
    before = process.memory_info().rss

    def sample() -> None:
        while not over.wait(_POLL_EVERY_S):
            found.bytes = max(found.bytes, process.memory_info().rss - before)

    thread = Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def seconds(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run_method(options: argparse.Namespace) -> None:
    """Measure one method in this process; write its figures to a file."""
    torch.set_num_threads(options.threads)
    work = Work(options.size, 1, 1, seq_len=32, threads=options.threads)
    method = WAYS[options.contender](work, options.folder)
    blocked = []
    with resident_peak() as while_saving:
        for step in range(1, NUM_SAVES + 1):
            blocked.append(seconds(lambda step=step: method.save(step)))  # type: ignore[misc]
            method.settle()
    figures = {
        "first": blocked[0],
        "later": statistics.median(blocked[1:]),
        "save_bytes": while_saving.bytes,
    }
    with resident_peak() as while_loading:
        figures["load"] = min(seconds(method.load) for _ in range(NUM_LOADS))
    figures["load_bytes"] = while_loading.bytes
    options.result.write_text(json.dumps(figures))
    # PyTorch 2.13's gloo threads abort the process in about one exit of ten: leave without them.
    os._exit(0)


def measure_method(options: argparse.Namespace, name: str) -> Mapping[str, float]:
    """The figures of one method, measured in a process of its own."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = Path(folder) / "figures.json"
        arguments = [sys.executable, "-m", "benchmarks.checkpoint", "--size", options.size]
        arguments += ["--threads", str(options.threads), "--folder", folder]
        arguments += ["--contender", name, "--result", str(result)]
        threads = str(options.threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu"}
        environment["LOCAL_RANK"] = "0"  # required by DeepSpeed
        done = subprocess.run(
            arguments, capture_output=True, text=True, env=environment, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-6000:]}")
        return json.loads(result.read_text())


def measure(options: argparse.Namespace) -> list[dict[str, Mapping[str, float]]]:
    """The figures of every method in every round; the first one changes from round to round."""
    measured = []
    for number in range(options.rounds):
        order = options.only if number % 2 == 0 else options.only[::-1]
        found = {}
        for name in order:
            found[name] = measure_method(options, name)
            print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
        measured.append(found)
    return measured


def memory(measured: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> Memory:
    """The maximum over all rounds."""
    saving = max(int(found[name]["save_bytes"]) for found in measured)
    loading = max(int(found[name]["load_bytes"]) for found in measured)
    return Memory(name, saving, None if name in COPIES else loading)


def report(options: argparse.Namespace, measured: list[dict[str, Mapping[str, float]]]) -> None:
    """Print every table, and write JSON where asked."""
    facts = machine(PACKAGES)
    print(" · ".join(f"{k} {v}" for k, v in facts.items()))
    print(f"language:{options.size} with AdamW, {options.threads} threads, {options.rounds} rounds")
    tables = {}
    for key, (arguments, unit, names) in TABLES.items():
        named = [name for name in names if name in options.only]
        reference = REFERENCE if REFERENCE in named else named[0]
        times = [{name: found[name][key] for name in named} for found in measured]
        tables[key] = rows(times, reference)
        print(f"\n{arguments}\n", *table(tables[key], unit), sep="\n")
    taken = [memory(measured, name) for name in options.only]
    print("\nmost host memory above training's own\n", *memory_table(taken), sep="\n")
    save(options.json, command("checkpoint", sys.argv[1:]), facts, tables, taken)


def main() -> None:
    """Measure, print the tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--size", default="124M", help="size of the language family")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=psutil.cpu_count(logical=False) or 1)
    parser.add_argument("--folder", type=Path, help="where to write; default: the temporary folder")
    parser.add_argument("--only", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--smoke", action="store_true", help="one round of a tiny model")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run_method(options)
        return
    if options.smoke:
        options.size, options.rounds = "tiny", 1
    report(options, measure(options))


if __name__ == "__main__":
    main()
