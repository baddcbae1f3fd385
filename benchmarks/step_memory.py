"""What does a training step hold at its peak, compared with what its engine's placement gives?

    python -m benchmarks.step_memory                     # every engine on 2 and 4 ranks

The model is a chain of equal square matrices, with activations that are negligible. Counted are the
bytes of every tensor on rank 0, from the operator that makes it until it is freed, in the third
step; copies inside of gloo do not count, as other backends make none. Buckets of DeepSpeed have the
size of one matrix: their defaults are for larger models.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import isolated
from benchmarks.figures import command, listed, machine, save_rows
from engines.base import OptimizerSpec, Options
from engines.catalog import build_engine, find
from engines.world import open_world
from engines.zero.config_file import shipped

BLOCKS, WIDTH = 32, 512
STEPS = 3
TOLERANCE = 0.05
BLOCK = 1 / BLOCKS
_LIMIT_S = 300.0
_BUCKET = WIDTH * WIDTH


# Bytes on each of n ranks, in units of the fp32 weights; a block is BLOCK of them. All engines keep
# two moments. While ddp and oss average, a new gradient is beside its bucket. fsdp gathers a block
# ahead, and sends a gradient while it computes the next one. DeepSpeed copies its part of the
# gradients into one tensor for the update, beside its master weights; with offload that tensor is
# kept. Host and device are one memory here.
PLACEMENTS: Mapping[str, Callable[[int], float]] = {
    "local": lambda n: 4,
    "ddp": lambda n: 4 + BLOCK,
    "oss": lambda n: 2 + 2 / n + BLOCK,
    "fsdp": lambda n: 4 / n + (4 - 1 / n) * BLOCK,
    "zero1": lambda n: 1 + 5 / n,
    "zero2": lambda n: 1 + 5 / n,
    "zero2-offload": lambda n: 1 + 5 / n + 7 * BLOCK,
    "zero3": lambda n: 6 / n + BLOCK,
    "zero3-offload": lambda n: 6 / n + (4 + 2 / n) * BLOCK,
}


@dataclass(frozen=True)
class Row:
    """Bytes of one rank, in units of the fp32 weights."""

    engine: str
    ranks: int
    kept: float
    """Between two steps."""
    peak: float
    """In the last step."""
    expected: float
    """The peak by PLACEMENTS."""
    steps: int


class Storages(TorchDispatchMode):
    """Counts the bytes of all storages that operators return while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if type(tensor) in (Tensor, nn.Parameter) and tensor.device.type != "meta":
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage: torch.UntypedStorage) -> None:
        """Count `storage` with its present size, until it is freed."""
        key = storage._cdata
        if key not in self._sizes:
            weakref.finalize(storage, self._change, key, None)
        self._change(key, storage.nbytes())

    def _change(self, key: int, size: int | None) -> None:
        self.now += (size or 0) - self._sizes.pop(key, 0)
        if size is not None:
            self._sizes[key] = size
        self.peak = max(self.peak, self.now)

    @contextmanager
    def resizes(self) -> Iterator[None]:
        """Count storages again that are resized, as FSDP frees what it gathered."""
        storages: Any = torch.UntypedStorage
        original = storages.resize_

        def resize(storage: torch.UntypedStorage, size: int) -> Any:
            done = original(storage, size)
            self.count(storage)
            return done

        storages.resize_ = resize
        try:
            yield
        finally:
            storages.resize_ = original


class Chain(nn.Module):
    """Matrices one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:  # [batch, WIDTH] -> [batch, WIDTH]
        for block in self.blocks:
            x = x + block(x)
        return x


def step(report: isolated.Report, engine: str) -> None:
    """One rank of the steps; `report` gets bytes, in units of the weights."""
    torch.set_num_threads(1)
    world = open_world("cpu", timeout_s=_LIMIT_S, always_group=True)
    torch.manual_seed(1)
    storages = Storages()
    with storages, storages.resizes():
        model = Chain()
        weights = sum(p.nbytes for p in model.parameters())
        placed = build_engine(engine, world, Options(ds_config=_ds_config(engine)))
        build = partial(torch.optim.AdamW, lr=1e-3, fused=True)
        spec = OptimizerSpec([{}], lambda _name, _parameter: 0, build, clip_norm=1.0)
        module = placed.prepare(model, spec, list(model.blocks))
        x = torch.randn(1, WIDTH)
        for _ in range(STEPS):
            storages.peak = kept = storages.now
            with placed.accumulate(last=True):
                placed.backward(module(x).square().mean())
            placed.step()
    report({"kept": kept / weights, "peak": storages.peak / weights})
    world.barrier()


def _ds_config(engine: str) -> dict[str, Any]:
    file = find(engine).ds_config
    if file is None:
        return {}
    config = shipped(file)
    zero = config["zero_optimization"]
    zero |= {"reduce_bucket_size": _BUCKET, "allgather_bucket_size": _BUCKET}
    if zero["stage"] == 3:
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET,
            "stage3_max_live_parameters": _BUCKET,
            "stage3_max_reuse_distance": 0,
            "stage3_param_persistence_threshold": 0,
        }
    return config


def table(rows: Sequence[Row]) -> str:
    """The peaks as a Markdown table, a line for each engine."""
    ranks = sorted({row.ranks for row in rows if row.ranks > 1})
    head = [f"peak on {n} processes | by placement" for n in ranks]
    lines = [f"| engine | {' | '.join(head)} |", "|---" + "|---:" * 2 * len(ranks) + "|"]
    for engine in dict.fromkeys(row.engine for row in rows):
        found = {row.ranks: row for row in rows if row.engine == engine}
        own = [found.get(n, found.get(1)) for n in ranks]
        cells = [f"{row.peak:.3f} | {row.expected:.3f}" for row in own if row is not None]
        lines.append(f"| `{engine}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, and write JSON where asked; 1: a peak is 5 % from its placement."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", nargs="+", default=[*PLACEMENTS], choices=PLACEMENTS)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    isolated.preload(["torch._dynamo", "torch.distributed.fsdp", "engines.catalog"])
    facts = machine(("torch", "deepspeed", "fairscale"))
    rows = []
    for engine in options.engines:
        for ranks in options.ranks if engine != "local" else [1]:
            found = isolated.run("benchmarks.step_memory:step", {"engine": engine}, ranks, _LIMIT_S, {})
            if found.error:
                raise SystemExit(f"{engine} on {ranks} ranks: {found.error}")
            kept, peak = found.figures["kept"], found.figures["peak"]
            rows.append(Row(engine, ranks, kept, peak, PLACEMENTS[engine](ranks), STEPS))
    print(f"{listed(facts)}\n{table(rows)}")
    if options.json:
        save_rows(options.json, command("step_memory", sys.argv[1:]), facts, rows)
    return int(any(abs(row.peak / row.expected - 1) > TOLERANCE for row in rows))


if __name__ == "__main__":
    sys.exit(main())
