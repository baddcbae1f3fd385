"""What does training reach on a GPU, compared with plain PyTorch, fully_shard and DeepSpeed?

    python -m benchmarks.gpu                  # one GPU, in less than ten minutes
    python -m benchmarks.gpu --continue       # then what there was no time for
    python -m benchmarks.gpu --nproc 4        # four GPUs
    python -m benchmarks.gpu --smoke          # the same code on a CPU, tiny

Each part has a process of its own for each rank, and a limit of time: one that fails is a row, and
the next one starts. The parts that decide most come first. docs/results.md explains them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_tables, isolated
from benchmarks.figures import command, load_rows, machine, save_rows
from benchmarks.gpu_tables import Row
from engines.catalog import ENGINES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
PARTS = "benchmarks.gpu_parts"
PACKAGES = ("torch", "triton", "deepspeed", "transformers")
IMPORTED = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    PARTS,
    "launcher.run.worker",
    "transformers",
)
"""Imports that all parts share; none of them touches a GPU, as DeepSpeed's may."""
SIZES = {"124M": (1024, 32), "1.3B": (2048, 8)}
"""Sequence length and micro-batch of each size."""
WARMUP, TIMED = 6, 15
NO_OVERLAP = {"engine.ds_config": {"zero_optimization": {"overlap_comm": False}}}
FP8 = {"precision": "fp8"}
OUT_OF_TIME = "not run: out of time"
LEAST_S = 20.0
"""Not started with less time left."""


@dataclass(frozen=True)
class Part:
    """One row: a function ("module:name") for benchmarks.isolated, and its arguments."""

    name: str
    function: str
    arguments: dict[str, Any]
    limit_s: float = 150.0
    ranks: int = 1


def parts(nproc: int, is_smoke: bool) -> list[Part]:
    """Every part, the most valuable first."""
    ceiling = Part("ceiling", f"{PARTS}:ceiling", {"is_smoke": is_smoke}, 60.0)
    if is_smoke:
        rows = [
            _step("tiny", ranks, side, engine, is_smoke=True, **more)
            for ranks, side, engine, more in (
                (nproc, "plain", "local", {}),
                (nproc, "plain", "fsdp", {}),
                (nproc, "plain", "zero2-offload", {"compile": False}),
                (nproc, "raw", "local", {"compile": False}),
                (nproc, "ours", "local", {"compile": False, "packed": True}),
                (2, "ours", "zero3", {"compile": False, "settings": NO_OVERLAP}),
            )
        ]
        return [ceiling, *rows, *_tests(["tests/training/test_throughput.py"])]
    return [ceiling, *_anchored(nproc), *_tests(test_files()), *_others(nproc)]


def _anchored(nproc: int) -> Iterator[Part]:
    """Plain PyTorch, fully_shard and DeepSpeed, each before the engine of ours held against it.

    DeepSpeed's own Adam needs a compiler and CUDA's; with torch's there is an anchor in any case.
    """
    alone = "local" if nproc == 1 else "ddp"
    for size in SIZES:
        yield _step(size, nproc, "plain", alone)
        yield _step(size, nproc, "ours", alone)
        yield _step(size, nproc, "plain", "fsdp")
        yield _step(size, nproc, "ours", "fsdp")
        yield _step(size, nproc, "plain", "zero2-offload own Adam", compile=False)
        yield _step(size, nproc, "plain", "zero2-offload", compile=False)
        yield _step(size, nproc, "ours", "zero2-offload")


def _others(nproc: int) -> Iterator[Part]:
    """Packed documents, 8 bits, all other engines, and what explains differences."""
    alone = "local" if nproc == 1 else "ddp"
    first = (alone, "fsdp", "zero2-offload")
    rest = [name for name in ENGINES if name not in (*first, "local")]
    for size in SIZES:
        for engine in first:
            yield _step(size, nproc, "ours", engine, packed=True)
    for size in SIZES:
        for engine in (alone, "fsdp"):
            yield _step(size, nproc, "ours", engine, settings=FP8)
        for engine in ("zero1", "zero2", "zero3") if nproc > 1 else ():
            yield _step(size, nproc, "ours", engine, settings=NO_OVERLAP)
    for size in SIZES:
        yield _step(size, nproc, "plain", alone, compile=False)
        yield _step(size, nproc, "raw", alone)
        yield _step(size, nproc, "plain", "zero2", compile=False)
        for is_packed in (False, True):
            for engine in rest:
                yield _step(size, nproc, "ours", engine, packed=is_packed)


def _step(
    size: str,
    nproc: int,
    side: str,
    engine: str,
    *,
    packed: bool = False,
    compile: bool = True,
    settings: Mapping[str, Any] | None = None,
    is_smoke: bool = False,
) -> Part:
    seq_len, micro_batch = (32, 2) if is_smoke else SIZES[size]
    facts = {
        "side": side,
        "engine": engine,
        "size": size,
        "seq_len": seq_len,
        "micro_batch": micro_batch,
        "packed": packed,
        "compile": compile,
        "settings": settings or {},
        "is_smoke": is_smoke,
    }
    warmup, timed = (1, 1) if is_smoke else (WARMUP, TIMED)
    kind = f"{'packed' if packed else 'unpacked'}, {'compiled' if compile else 'eager'}"
    name = ", ".join([f"{size} {side} {engine}", kind, *gpu_tables.changes(settings or {})])
    return Part(name, f"{PARTS}:step", {"warmup": warmup, "timed": timed, **facts}, ranks=nproc)


def test_files() -> list[str]:
    """The files with tests marked gpu, those of the whole program last."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(r"^(@|pytestmark = )pytest\.mark\.gpu", path.read_text(), re.MULTILINE)
    ]
    return sorted(found, key=lambda path: path.startswith("tests/runs/"))


def _tests(files: Sequence[str]) -> list[Part]:
    return [Part(path, f"{PARTS}:tests", {"path": path}, 120.0) for path in files]


def measure(part: Part, limit_s: float, is_smoke: bool) -> Row:
    """Run `part`; an error becomes the status of its row."""
    # Each part has its own temporary folder, but what one has compiled serves the others.
    graphs = Path(tempfile.gettempdir()) / "gearshift-benchmark-graphs"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(graphs)}
    if is_smoke:
        variables["DS_ACCELERATOR"] = "cpu"
    result = isolated.run(part.function, part.arguments, part.ranks, limit_s, variables)
    status = f"failed: {result.error}" if result.error else "measured"
    if result.is_late and limit_s < part.limit_s:
        status = OUT_OF_TIME
    return Row(part.name, part.ranks, status, result.seconds, part.arguments, result.figures)


def run(
    wanted: Sequence[Part], options: argparse.Namespace, facts: dict[str, str], until: float
) -> list[Row]:
    """A row for each part, those of an earlier run included; saved after each one.

    `facts` of the machine; no part starts after `until`, of time.monotonic.
    """
    rows = _earlier(options, facts)
    for part in wanted:
        key = (part.name, part.ranks)
        kept = rows.get(key)
        left = until - time.monotonic()
        if options.only and part.name != "ceiling":
            is_wanted = any(word in part.name for word in options.only)
        else:
            is_wanted = kept is None or kept.status.startswith("not run")
        if not is_wanted:
            row = kept or _not_run(part, "not run: not selected")
        elif left < min(LEAST_S, part.limit_s):
            row = _not_run(part, OUT_OF_TIME)
        else:
            row = measure(part, min(part.limit_s, left), options.smoke)
            print(f"{row.name}: {row.status}, {row.seconds:.0f} s", file=sys.stderr, flush=True)
        if part.name == "ceiling":
            _check_gpu(row, options, facts)
        rows[key] = row
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            save_rows(options.json, options.command, facts, list(rows.values()))
    return list(rows.values())


def _check_gpu(ceiling: Row, options: argparse.Namespace, facts: dict[str, str]) -> None:
    """Add the name of the GPU to `facts`; exits if the machine has no or too few GPUs."""
    if ceiling.status.startswith("failed"):
        sys.exit(f"error: {ceiling.status.removeprefix('failed: ')}")
    count = ceiling.figures.get("gpus")
    if count is not None and count < options.nproc and not options.smoke:
        sys.exit(f"error: --nproc {options.nproc}: this machine has GPUs: {count}")
    facts["gpu"] = ceiling.figures.get("gpu", "unknown")


def _not_run(part: Part, status: str) -> Row:
    return Row(part.name, part.ranks, status, 0.0, part.arguments, {})


def _earlier(options: argparse.Namespace, facts: dict[str, str]) -> dict[tuple[str, int], Row]:
    """The rows to keep; exits if another machine or library measured them."""
    if not ((options.resume or options.only) and options.json and options.json.exists()):
        return {}
    earlier, where, rows = load_rows(options.json, Row)
    if {**where, **facts} != where:
        sys.exit(f"error: {options.json} is of another machine or library; remove it to start")
    if options.command not in earlier:
        options.command = f"{earlier} && {options.command}"
    return {(row.name, row.gpus): row for row in rows}


def main() -> None:
    """Measure, print the tables, and write JSON and the tables of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--nproc", type=int, default=1, help="GPUs, one rank each")
    parser.add_argument("--minutes", type=float, default=9.0, help="then no part starts any more")
    parser.add_argument(
        "--only", nargs="+", help="measure parts with one of these texts in their name; keep others"
    )
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="measure only what was not run"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--json", type=Path, help="the figures; default: benchmarks/results")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    if options.json is None and not options.smoke:
        options.json = RESULTS
    options.command = command("gpu", sys.argv[1:])
    isolated.preload(IMPORTED)
    wanted = parts(options.nproc, options.smoke)
    rows = run(wanted, options, machine(PACKAGES), until)
    for table in (gpu_tables.speed, gpu_tables.kernels, gpu_tables.tests):
        print("\n".join(table(rows)), end="\n\n")
    if options.json == RESULTS:
        subprocess.run([sys.executable, "-m", "scripts.write_docs", "results"], cwd=ROOT)


if __name__ == "__main__":
    main()
