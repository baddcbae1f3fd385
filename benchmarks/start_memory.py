"""How much host memory does a start take above what its engine keeps?

    python -m benchmarks.start_memory                    # 350M on 4 ranks
    python -m benchmarks.start_memory --smoke            # the same code on a tiny model

Each start builds the model, and lets the engine place it and write its first weights, on ranks in a
control group of their own (root, Linux). Memory that the kernel can reclaim, such as files, does
not count; nor do the interpreters, which are the same start with a tiny model. "whole" is a start
that builds the whole model on each rank. The last column: whether a deferred start works in a group
that is limited to what its engine keeps and 0.2 times the weights.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks import isolated
from benchmarks.figures import command, listed, machine, save_rows
from benchmarks.sampling import peak
from engines import deferred_init
from engines.base import OptimizerSpec, Options
from engines.catalog import build_engine, find
from engines.world import open_world
from engines.zero.config_file import shipped
from models.language.config import SIZES
from models.language.model import Transformer
from training import seeds
from training.resources.cgroup import MOUNT

ENGINES = ("fsdp", "zero3", "zero3-offload", "zero2", "zero1", "oss")
GROUP = f"gearshift-start-{os.getpid()}"
SHARE = 0.2
_POLL_EVERY_S = 0.005
_LIMIT_S = 900.0


def start(report: isolated.Report, group: str, engine: str, size: str, defers: bool) -> None:
    """One rank of a start; `report` gets the memory of the group at its end."""
    (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    torch.set_num_threads(1)
    world = open_world("cpu", timeout_s=_LIMIT_S, always_group=True)
    seeds.seed_weights(1)
    make = partial(Transformer, SIZES[size])
    built, weights = deferred_init.build(make, world) if defers else (make(), None)
    file = find(engine).ds_config
    placed = build_engine(engine, world, Options(ds_config=shipped(file) if file else {}))
    build = partial(torch.optim.AdamW, lr=1e-3)
    spec = OptimizerSpec([{}], lambda _name, _parameter: 0, build, clip_norm=1.0)
    placed.prepare(built, spec, list(built.get_submodule("model.layers").children()))
    if weights is not None:
        weights.write(placed)
    del built, weights
    world.barrier()
    if world.rank == 0:
        report({"kept": used(Path(group))})
    world.barrier()


def used(group: Path) -> int:
    """Bytes of `group` that the kernel cannot reclaim."""
    words = (group / "memory.stat").read_text().split()
    stat = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    return stat["anon"] if "anon" in stat else stat["total_rss"]


@dataclass(frozen=True)
class Memory:
    """Bytes of the memory of all ranks."""

    kept: int
    peak: int
    error: str


@dataclass(frozen=True)
class Row:
    """Memory of all ranks of a start, in units of the weights."""

    engine: str
    start: str
    kept: float
    """What the engine keeps."""
    above: float
    """The peak above that."""
    works: bool | None
    """With a limit of SHARE above what the engine keeps; None: not tried."""
    ranks: int


def measure(engine: str, size: str, ranks: int, defers: bool, limit: int | None = None) -> Memory:
    """A start on `ranks` ranks, in a control group with `limit` bytes."""
    with control_group(limit) as group, peak(lambda: used(group), _POLL_EVERY_S) as found:
        arguments = {"group": str(group), "engine": engine, "size": size, "defers": defers}
        result = isolated.run("benchmarks.start_memory:start", arguments, ranks, _LIMIT_S, {})
    return Memory(result.figures.get("kept", 0), found.bytes, result.error)


@contextmanager
def control_group(limit: int | None) -> Iterator[Path]:
    """A new control group for memory. Raises SystemExit if this process may not make one."""
    two = (MOUNT / "cgroup.controllers").exists()
    group = (MOUNT if two else MOUNT / "memory") / GROUP
    try:
        group.mkdir()
        if limit is not None:
            (group / ("memory.max" if two else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as error:
        raise SystemExit(f"this needs a control group for memory: {error}") from None
    try:
        yield group
    finally:
        while (group / "cgroup.procs").read_text():
            time.sleep(_POLL_EVERY_S)
        group.rmdir()


def starts(engine: str, size: str, ranks: int, weights: int) -> Iterator[Row]:
    """Both starts of an engine; a deferred one also within the limit. Raises SystemExit."""
    for defers in (False, True):
        alone = measure(engine, "tiny", ranks, defers)
        found = measure(engine, size, ranks, defers)
        if found.error or alone.error:
            raise SystemExit(f"{engine}: {found.error or alone.error}")
        works = None
        if defers:
            limit = found.kept + int(SHARE * weights)
            works = not measure(engine, size, ranks, defers, limit).error
        kept, above = (found.kept - alone.kept) / weights, (found.peak - found.kept) / weights
        yield Row(engine, "deferred" if defers else "whole", kept, above, works, ranks)


def table(rows: Sequence[Row]) -> str:
    """The starts as a Markdown table."""
    lines = ["| engine | start | kept | peak above | works with 0.2 above |"]
    lines.append("|---|---|---:|---:|---|")
    for row in rows:
        works = {None: "–", True: "yes", False: "no"}[row.works]
        lines.append(
            f"| `{row.engine}` | {row.start} | {row.kept:.2f} | {row.above:.2f} | {works} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--smoke", action="store_true", help="a small model on two ranks")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    size, ranks = ("lite", 2) if options.smoke else ("350M", options.ranks)
    with torch.device("meta"):
        weights = sum(p.nbytes for p in Transformer(SIZES[size]).parameters())
    facts = machine(("torch", "deepspeed"))
    print(f"{listed(facts)}\nlanguage:{size}, {weights / 2**20:.0f} MiB of weights, {ranks} ranks")
    rows: list[Row] = []
    for engine in options.engines:
        for row in starts(engine, size, ranks, weights):
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
            if options.json:
                save_rows(options.json, command("start_memory", sys.argv[1:]), facts, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
