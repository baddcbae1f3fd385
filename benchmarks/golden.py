"""Are ten losses of every family under every engine those of the commit that wrote the file?

    python -m benchmarks.golden
    python -m benchmarks.golden --write

Each run is one that anyone may start: the tiny model on its embedded data, on a CPU in fp32, on
two ranks with one thread each (`local`: on one). Losses must be equal where the processor and the
versions are those in the file, and otherwise within the tolerance. Exit code 1 where they are not.
A commit that changes numbers writes the file, and says which and by how much.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.figures import machine, write
from gearshift.engines.catalog import ENGINES
from gearshift.models.catalog import FAMILIES

FILE = Path(__file__).parent / "results" / "golden.json"
STEPS, RANKS = 10, 2
TOLERANCE = 1e-3
"""Relative: sums in another order on another processor, after ten steps."""
SETTINGS = {
    "device": "cpu",
    "precision": "fp32",
    "engine.threads": 1,
    "train.max_steps": STEPS,
    "train.preview": False,
    "loader.workers": 0,
    "eval.every": None,
    "save.every": None,
    "log.every": 1,
    "report.enabled": False,
}
Losses = dict[str, list[float]]
"""The loss of each step, by family and engine."""
PACKAGES = ("numpy", "deepspeed", "fairscale", "transformers")


def train(runs: Sequence[tuple[str, str, int]], work: Path) -> None:
    """One rank of all runs (family, engine, port); rank 0 writes their losses. Does not return."""
    import gearshift

    losses: Losses = {}
    for family, engine, port in runs:
        os.environ["MASTER_PORT"] = str(port)  # each run has a process group of its own
        out, name = work / f"{family}-{engine}", f"{family}:tiny"
        run = gearshift.train(name, engine=engine, out=out, settings=SETTINGS, console=False)
        if os.environ["RANK"] == "0":
            losses[f"{family} {engine}"] = [line["loss"] for line in run.metrics("train")]
            (work / "losses.json").write_text(json.dumps(losses))
    os._exit(0)  # PyTorch 2.13's gloo threads abort the process in about one exit of ten


def measured(families: Sequence[str], engines: Sequence[str]) -> Losses:
    """The losses of all runs, by ranks of their own. Raises RuntimeError with the output of one."""
    losses: Losses = {}
    for size in (1, RANKS):
        chosen = [e for e in engines if (ENGINES[e].processes == 1) == (size == 1)]
        pairs = [(family, engine) for family in families for engine in chosen]
        with ExitStack() as held:
            address = ("127.0.0.1", 0)
            servers = [held.enter_context(socket.create_server(address)) for _ in pairs]
            ports = [server.getsockname()[1] for server in servers]
        runs = [(*pair, port) for pair, port in zip(pairs, ports, strict=True)]
        if runs:
            with tempfile.TemporaryDirectory(prefix="gearshift-golden-") as work:
                _run_ranks(size, runs, Path(work))
                losses |= json.loads((Path(work) / "losses.json").read_text())
    return losses


def _run_ranks(size: int, runs: Sequence[tuple[str, str, int]], work: Path) -> None:
    shared = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "benchmarks.golden", "--work", str(work), json.dumps(runs)]
    with ExitStack() as opened:
        ranks = []
        for rank in range(size):
            log = opened.enter_context((work / f"rank-{rank}.txt").open("w"))
            variables = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(line, env=variables, stdout=log, stderr=log))
        codes = [process.wait() for process in ranks]
    if any(codes):
        failed = next(rank for rank, code in enumerate(codes) if code)
        raise RuntimeError((work / f"rank-{failed}.txt").read_text()[-8000:])


def differences(found: Losses, expected: Losses, tolerance: float) -> list[str]:
    """A line for each run with another number of losses, or one beyond the relative tolerance."""
    lines = []
    for name, losses in found.items():
        known = expected.get(name, [])
        apart = [abs(a - b) / abs(b) for a, b in zip(losses, known, strict=False)]
        if len(losses) != len(known):
            lines.append(f"{name}: {len(losses)} losses; the file has {len(known)}")
        elif wrong := [n for n, error in enumerate(apart) if not error <= tolerance]:
            step = wrong[0]
            pair = f"{losses[step]!r}; the file has {known[step]!r}"
            lines.append(f"{name}: step {step + 1}: {pair}; largest difference {max(apart):.1g}")
    return lines


def main() -> int:
    """Compare with the file, or write it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--write", action="store_true", help="replace the losses in the file")
    parser.add_argument("--families", nargs="+", default=[*FAMILIES], choices=[*FAMILIES])
    parser.add_argument("--engines", nargs="+", default=[*ENGINES], choices=[*ENGINES])
    parser.add_argument("--json", type=Path, default=FILE, help="the file")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("runs", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        train(json.loads(options.runs), options.work)
    facts = {k: v for k, v in machine(("torch", *PACKAGES)).items() if k != "cores"}
    found = measured(options.families, options.engines)
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    if options.write:
        kept = known["losses"] if known.get("machine") == facts else {}
        losses = dict(sorted((kept | found).items()))
        line = "python -m benchmarks.golden --write"
        write(options.json, {"command": line, "machine": facts, "losses": losses})
        print(f"wrote {len(found)} runs to {options.json}")
        return 0
    tolerance = 0.0 if known.get("machine") == facts else TOLERANCE
    lines = differences(found, known.get("losses", {}), tolerance)
    print("\n".join([*lines, f"{len(lines)} of {len(found)} runs differ; tolerance {tolerance:g}"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
