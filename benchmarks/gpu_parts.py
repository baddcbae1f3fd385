"""The parts of the benchmark for GPUs, what decides most first, and the seconds that each takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.figures import load_rows
from gearshift.engines.catalog import ENGINES
from gearshift.models.catalog import FAMILIES

ROOT = Path(__file__).parents[1]
LLAMA = "llama"
"""Stands for a family: a random Llama whose adapters are trained, as one that was downloaded."""
ADAPTERS = {"model.lora.rank": 8}
NUMBERS = (
    "tests/models/language/test_head.py",
    "tests/models/language/test_packed_attention.py",
    "tests/training/checkpoint/test_gpu_host_copy.py",
    "tests/training/data/test_gpu_loader.py",
    "tests/engines/test_activation_offload.py",
    "tests/engines/test_gpu_engines.py",
)
"""The files of tests that compare numbers of a GPU, without a whole program; the longest last."""
FEATURES: Sequence[Mapping[str, Any]] = (
    {"memory.activation_checkpointing": "full"},
    {"memory.activation_checkpointing": "selective"},
    {"optim.name": "muon"},
    {"precision": "fp8"},
)
HSDP = {"engine.hybrid_shard": True}
OUT_OF_TIME = "not run: out of time"


@dataclass(frozen=True)
class Part:
    """One row: a function of benchmarks.gpu for benchmarks.isolated, its arguments and result."""

    name: str
    function: str
    arguments: Mapping[str, Any]
    limit_s: float = 150.0
    estimate_s: float = 30.0
    """Not started with less time left, unless it took another time before."""
    gpus: int = 1
    nodes: int = 1
    """Simulated ones, which share the GPUs."""
    status: str = OUT_OF_TIME
    """`measured`, `failed: ` with the last line of the error, or `not run: ` with the reason."""
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)


def parts(nproc: int, is_smoke: bool) -> list[Part]:
    """Every part, the most valuable first; in a smoke test one of each kind."""
    first = ["tests/training/test_throughput.py"] if is_smoke else NUMBERS
    others = [] if is_smoke else [path for path in test_files() if path not in NUMBERS]
    ceiling = Part("ceiling", "ceiling", {"is_smoke": is_smoke}, 60.0, 15.0)
    steps = [*_steps(nproc, ["tiny"] if is_smoke else ["124M", "1.3B"])]
    if is_smoke:  # DeepSpeed compiles its own Adam, for a minute; FP8 is refused on a CPU
        steps = [part for part in steps if not re.search("own Adam|fp8", part.name)]
        kinds = [
            str([p.arguments[k] for k in ("side", "family", "packed", "settings")]) for p in steps
        ]
        steps = [part for n, part in enumerate(steps) if kinds.index(kinds[n]) == n]
    return [ceiling, *map(_tests, first), *steps, *map(_tests, others)]


def _tests(path: str) -> Part:
    is_long = path == NUMBERS[-1] or path.startswith("tests/runs/")
    return Part(path, "tests", {"path": path}, 300.0, 120.0 if is_long else 30.0)


def _steps(nproc: int, sizes: Sequence[str]) -> Iterator[Part]:
    """The contenders; each plain one stands before the engine of ours that is held against it.

    DeepSpeed's own Adam needs a compiler and CUDA's; with torch's there is an anchor in any case.
    """
    alone = "local" if nproc == 1 else "ddp"
    first = (alone, "fsdp", "zero2-offload")
    for size in sizes:
        for engine in (alone, "fsdp"):
            yield _step(size, nproc, "plain", engine)
            yield _step(size, nproc, "ours", engine)
    for size in sizes:
        yield _step(size, nproc, "plain", "zero2-offload own Adam", compile=False)
        yield _step(size, nproc, "plain", "zero2-offload", compile=False)
        yield _step(size, nproc, "ours", "zero2-offload")
    for more in ({}, {"model.quantize": "nf4"}):
        size = "tiny" if "tiny" in sizes else "0.5B"
        yield _step(size, 1, "ours", "local", family=LLAMA, settings={**ADAPTERS, **more})
    for family in (name for name in FAMILIES if name != "language"):
        size = "tiny" if "tiny" in sizes else "full"
        for compile in (False, True):
            yield _step(size, 1, "raw", "local", family=family, compile=compile)
        yield _step(size, 1, "ours", "local", family=family)
    for size in sizes:
        for engine in first:
            yield _step(size, nproc, "ours", engine, packed=True)
        for settings in FEATURES:
            for engine in (alone, "fsdp"):
                yield _step(size, nproc, "ours", engine, settings=settings)
        hybrid = _step(size, nproc, "ours", "fsdp", settings=HSDP)
        yield replace(hybrid, nodes=1 if nproc % 2 else 2)  # of one node: one replica
    for size in sizes:
        yield _step(size, nproc, "plain", alone, compile=False)
        yield _step(size, nproc, "raw", alone)
        yield _step(size, nproc, "plain", "zero2", compile=False)
        for packed in (False, True):
            for engine in (name for name in ENGINES if name not in (*first, "local")):
                yield _step(size, nproc, "ours", engine, packed=packed)


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
    """`side`: plain, raw or ours: a plain model, ours in a loop by hand, Gearshift."""
    case: dict[str, Any] = {"side": side, "engine": engine, "family": family, "size": size}
    case |= {"packed": packed, "compile": compile, "settings": settings or {}}
    name = f"{model_title(case)} {contender_title(case)}, {'packed' if packed else 'unpacked'}"
    estimate_s = 25.0 if size in ("124M", "tiny") else 45.0
    if "offload" in engine:
        estimate_s += 25.0
    if "own Adam" in engine:  # it is compiled
        estimate_s += 40.0
    return Part(name, "step", case, estimate_s=estimate_s, gpus=nproc)


def test_files() -> list[str]:
    """The files with tests marked gpu, those of the whole program last."""
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if re.search(r"^(@|pytestmark = )(pytest\.mark\.gpu|each_device)", path.read_text(), re.M)
    ]
    return sorted(found, key=lambda path: path.startswith("tests/runs/"))


def needed_s(wanted: Sequence[Part], path: Path | None) -> dict[str, float]:
    """The seconds of each part: measured, if the results at `path` have it, or else estimated."""
    found = {part.name: part.estimate_s for part in wanted}
    if path is not None and path.exists():
        earlier = load_rows(path, Part)[2]
        found |= {row.name: row.seconds for row in earlier if row.status == "measured"}
    return found


def model_title(case: Mapping[str, Any]) -> str:
    """The size of a language model; of another family with its name."""
    return case["size"] if case["family"] == "language" else f"{case['family']}:{case['size']}"


def contender_title(case: Mapping[str, Any]) -> str:
    titles = {"plain": "plain", "raw": "our model by hand in", "ours": "Gearshift"}
    kind = [] if case["compile"] else ["eager"]
    kind += [
        f"{key.removesuffix('.name').rpartition('.')[2]} {x}" for key, x in case["settings"].items()
    ]
    return ", ".join([f"{titles[case['side']]} {case['engine']}", *kind])
