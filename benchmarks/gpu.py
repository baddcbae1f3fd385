"""What does training reach on a GPU, compared with plain PyTorch, fully_shard and DeepSpeed?

    python -m benchmarks.gpu                  # one GPU, in 45 minutes
    python -m benchmarks.gpu --minutes 9      # what fits; then the rest with --continue
    python -m benchmarks.gpu --nproc 4        # four GPUs
    python -m benchmarks.gpu --smoke          # the same code on a CPU, tiny

First correctness: all engines compute the same, the memory of the GPU is known, and the tests that
need a GPU pass. Then speed beside plain PyTorch and fully_shard, then offload, then features. Each
part has a process of its own for each rank, and a limit of time: one that fails is a row, and the
next one starts. Exit code 1: a part failed.
docs/results.md explains the tables.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from benchmarks import gpu_tables, isolated
from benchmarks.figures import command, load_rows, machine, save_rows
from benchmarks.gpu_tables import Row
from engines.catalog import ENGINES
from launcher.run.affinity import limit_spinning
from models.catalog import FAMILIES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
PARTS, CHECKS = "benchmarks.gpu_parts", "benchmarks.gpu_checks"
PACKAGES = ("torch", "triton", "deepspeed", "transformers")
IMPORTED = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    *(PARTS, CHECKS),
    "launcher.run.worker",
    "transformers",
)
"""Imports that all parts share; none of them touches a GPU, as DeepSpeed's may."""
SIZES = {"124M": (1024, 32), "1.3B": (2048, 8)}
"""Sequence length and micro-batch of each size."""
TINY = (32, 2)
"""Those of size tiny, for a smoke test."""
WARMUP, TIMED = 6, 15
SMOKE = 2
"""Parts of each kind in a smoke test."""
NO_OVERLAP = {"engine.ds_config": {"zero_optimization": {"overlap_comm": False}}}
FP8 = {"precision": "fp8"}
MUON = {"optim.name": "muon"}
HSDP = {"engine.hybrid_shard": True}
CHECKPOINTING = "memory.activation_checkpointing"
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
    nodes: int = 1
    """Simulated ones, which share the ranks."""


def parts(nproc: int, is_smoke: bool) -> list[Part]:
    """Every part, the most valuable first."""
    smoke = {"is_smoke": is_smoke}
    checks = [
        Part("ceiling", f"{PARTS}:ceiling", smoke, 60.0),
        Part("engines agree", f"{CHECKS}:agreement", smoke, 120.0, nproc),
        Part("command line", f"{CHECKS}:command_line", smoke, 90.0),
    ]
    if nproc > 1 or is_smoke:
        checks.append(Part("lost rank", f"{CHECKS}:lost_rank", smoke, 90.0))
    if is_smoke:
        # DeepSpeed compiles its own Adam, for a minute.
        anchored = [part for part in _anchored(nproc, ["tiny"]) if "own Adam" not in part.name]
        kinds = (islice(kind, SMOKE) for kind in _kinds(max(2, nproc), ["tiny"]))
        tests = _tests(["tests/training/test_throughput.py"])
        return [*checks, *anchored, *chain.from_iterable(kinds), *tests]
    others = chain.from_iterable(_kinds(nproc, SIZES))
    return [*checks, *_tests(test_files()), *_anchored(nproc, SIZES), *others]


def _anchored(nproc: int, sizes: Iterable[str]) -> Iterator[Part]:
    """Plain PyTorch, fully_shard and DeepSpeed, each before the engine of ours held against it.

    DeepSpeed's own Adam needs a compiler and CUDA's; with torch's there is an anchor in any case.
    """
    for size in sizes:
        for engine in (_alone(nproc), "fsdp"):
            yield _step(size, nproc, "plain", engine)
            yield _step(size, nproc, "ours", engine)
    for size in sizes:
        yield _step(size, nproc, "plain", "zero2-offload own Adam", compile=False)
        yield _step(size, nproc, "plain", "zero2-offload", compile=False)
        yield _step(size, nproc, "ours", "zero2-offload")


def _kinds(nproc: int, sizes: Iterable[str]) -> Iterator[Iterator[Part]]:
    """All other parts, by kind."""
    alone = _alone(nproc)
    first = (alone, "fsdp", "zero2-offload")
    rest = [name for name in ENGINES if name not in (*first, "local")]
    for family in FAMILIES:
        if family != "language":
            yield _family(family, "tiny" if "tiny" in sizes else "full")
    for size in sizes:
        yield (_step(size, nproc, "ours", engine, packed=True) for engine in first)
        yield (
            _step(size, nproc, "ours", engine, settings={CHECKPOINTING: kept})
            for kept in ("full", "selective")
            for engine in (alone, "fsdp")
        )
        yield _hybrid(size, nproc)
        for changes in (MUON, FP8) if size != "tiny" else (MUON,):  # FP8 is refused on a CPU
            yield (_step(size, nproc, "ours", e, settings=changes) for e in (alone, "fsdp"))
        several = ("zero1", "zero2", "zero3") if nproc > 1 else ()
        yield (_step(size, nproc, "ours", engine, settings=NO_OVERLAP) for engine in several)
    for size in sizes:
        yield iter(
            [
                _step(size, nproc, "plain", alone, compile=False),
                _step(size, nproc, "raw", alone),
                _step(size, nproc, "plain", "zero2", compile=False),
            ]
        )
        for is_packed in (False, True):
            yield (_step(size, nproc, "ours", engine, packed=is_packed) for engine in rest)


def _alone(nproc: int) -> str:
    return "local" if nproc == 1 else "ddp"


def _family(family: str, size: str) -> Iterator[Part]:
    """A family by its defaults on one GPU, after its model in a loop by hand."""
    for compile in (False, True)[: 1 if size == "tiny" else 2]:
        yield _step(size, 1, "raw", "local", family=family, compile=compile)
    yield _step(size, 1, "ours", "local", family=family)


def _hybrid(size: str, nproc: int) -> Iterator[Part]:
    """HSDP on two simulated nodes; on one GPU, with one shard and one replica."""
    ranks = 2 if size == "tiny" else nproc
    nodes = 1 if ranks % 2 else 2
    yield replace(_step(size, ranks, "ours", "fsdp", settings=HSDP), nodes=nodes)


def _step(
    size: str,
    nproc: int,
    side: str,
    engine: str,
    *,
    family: str = "language",
    packed: bool = False,
    compile: bool = True,
    settings: Mapping[str, Any] | None = None,
) -> Part:
    is_smoke = size == "tiny"
    seq_len, micro_batch = SIZES.get(size, TINY)
    facts = {
        "side": side,
        "engine": engine,
        "family": family,
        "size": size,
        "seq_len": seq_len,
        "micro_batch": micro_batch,
        "packed": packed,
        "compile": compile,
        "settings": settings or {},
        "is_smoke": is_smoke,
    }
    warmup, timed = (1, 1) if is_smoke else (WARMUP, TIMED)
    kind = "compiled" if compile else "eager"
    if family == "language":
        kind = f"{'packed' if packed else 'unpacked'}, {kind}"
    title = gpu_tables.model(family, size)
    name = ", ".join([f"{title} {side} {engine}", kind, *gpu_tables.changes(settings or {})])
    return Part(name, f"{PARTS}:step", {"warmup": warmup, "timed": timed, **facts}, ranks=nproc)


def test_files() -> list[str]:
    """The files with tests marked gpu, those of the whole program last."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(r"^(@|pytestmark = )(pytest\.mark\.gpu|each_device)", path.read_text(), re.M)
    ]
    return sorted(found, key=lambda path: path.startswith("tests/runs/"))


def _tests(files: Sequence[str]) -> list[Part]:
    return [Part(path, f"{CHECKS}:tests", {"path": path}, 300.0) for path in files]


def measure(part: Part, limit_s: float, is_smoke: bool) -> Row:
    """Run `part`; an error becomes the status of its row."""
    # Each part has its own temporary folder, but what one has compiled serves the others.
    graphs = Path(tempfile.gettempdir()) / "gearshift-benchmark-graphs"
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(graphs)}
    if is_smoke:
        variables["DS_ACCELERATOR"] = "cpu"
    given = (part.arguments, part.ranks, limit_s, variables, part.nodes)
    result = isolated.run(part.function, *given)
    status = f"failed: {result.error}" if result.error else "measured"
    if result.is_late and limit_s < part.limit_s:
        status = OUT_OF_TIME
    return Row(part.name, part.ranks, status, result.seconds, part.arguments, result.figures)


def run(
    wanted: Sequence[Part], options: argparse.Namespace, facts: dict[str, str], until: float
) -> list[Row]:
    """A row for each part, those of an earlier run included; saved after each one.

    `facts` of the machine; no part starts after `until`, of time.monotonic. A ratio is to anchors
    of this call: those that an earlier one has measured are measured again before it.
    """
    rows = _earlier(options, facts)
    done = [part for part in wanted if not _is_open(rows.get((part.name, part.ranks)))]
    measured: list[Row] = []
    for part in wanted:
        if options.only and part.name != "ceiling":
            is_wanted = any(word in part.name for word in options.only)
        else:
            is_wanted = part not in done
        known = {row.name for row in measured}
        again = [
            other
            for other in done
            if other.name not in known and gpu_tables.is_anchor(_not_run(other), _not_run(part))
        ]
        for each in (*again, part) if is_wanted else ():
            left = until - time.monotonic()
            if left >= min(LEAST_S, each.limit_s):
                row = measure(each, min(each.limit_s, left), options.smoke)
                print(f"{row.name}: {row.status}, {row.seconds:.0f} s", file=sys.stderr, flush=True)
                measured.append(row := gpu_tables.with_anchor(row, measured))
                rows[each.name, each.ranks] = row
        status = OUT_OF_TIME if is_wanted else "not run: not selected"
        row = rows.setdefault((part.name, part.ranks), _not_run(part, status))
        if part.name == "ceiling":
            _check_gpu(row, options, facts)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            save_rows(options.json, options.command, facts, list(rows.values()))
    return list(rows.values())


def _is_open(row: Row | None) -> bool:
    return row is None or row.status.startswith("not run")


def _check_gpu(ceiling: Row, options: argparse.Namespace, facts: dict[str, str]) -> None:
    """Add the name of the GPU to `facts`; exits if the machine has no or too few GPUs."""
    if ceiling.status.startswith("failed"):
        sys.exit(f"error: {ceiling.status.removeprefix('failed: ')}")
    count = ceiling.figures.get("gpus")
    if count is not None and count < options.nproc and not options.smoke:
        sys.exit(f"error: --nproc {options.nproc}: this machine has GPUs: {count}")
    facts["gpu"] = ceiling.figures.get("gpu", "unknown")


def _not_run(part: Part, status: str = OUT_OF_TIME) -> Row:
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


def main() -> int:
    """Measure, print the tables, and write JSON and the tables of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--nproc", type=int, default=1, help="GPUs, one rank each")
    parser.add_argument("--minutes", type=float, default=45.0, help="then no part starts any more")
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
    limit_spinning(os.environ)  # as Gearshift does, for every contender
    isolated.preload(IMPORTED)
    wanted = parts(options.nproc, options.smoke)
    rows = run(wanted, options, machine(PACKAGES), until)
    for table in gpu_tables.TABLES:
        print("\n".join(table(rows)), end="\n\n")
    if options.json == RESULTS:
        subprocess.run([sys.executable, "-m", "scripts.write_docs", "results"], cwd=ROOT)
    return report_end(rows, options)


def report_end(rows: Sequence[Row], options: argparse.Namespace) -> int:
    """Name the parts that failed, and the command that measures the rest; the exit code."""
    failed = [row.name for row in rows if row.status.startswith("failed")]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    left = sum(row.status == OUT_OF_TIME for row in rows)
    if left:
        again = ["--nproc", str(options.nproc)] * (options.nproc > 1) + ["--continue"]
        again += ["--json", str(options.json)] * (options.json != RESULTS)
        print(f"not run yet: {left} of {len(rows)}:  {command('gpu', [])} {shlex.join(again)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
