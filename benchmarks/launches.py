"""How many kernels does a GPU start for one sample, with the batch and the compiler of a run there?

    python -m benchmarks.launches                       # every family, smallest and largest size
    python -m benchmarks.launches --models abr:full

Counted on a CPU, on tensors without values: an optimizer step of the engine local, with forward
passes, backward passes and update. Eager: operators that compute; views and allocations start no
kernel. Compiled: what torch's inductor schedules for each graph of a block, fused kernels and
matrix products, whenever that graph is called, and the operators outside of all blocks. Replayed:
one launch for each call of such a graph. The kernels of a CPU are fused by other rules than those
of a GPU, so the compiled counts are estimates.

The first column has the micro-batch and the accumulation of the family, the later ones those that
a run takes on one GPU with 80 GiB: the same global batch. Dropout and attention start one kernel
and one in the backward pass, as on a GPU.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import _disable_current_modes

from benchmarks.figures import command, listed, machine, save_rows
from engines.environment import RankInfo
from engines.local import local
from engines.world import ProcessWorld
from launcher.config.engine_options import engine_options
from launcher.config.machine import detect_machine
from launcher.config.provenance import CliArgs, Resolved
from launcher.config.resolve import resolve
from launcher.config.schema import config_of
from launcher.plan import auto
from launcher.plan.step_trace import MICRO_BATCHES, trace_step
from launcher.plan.subject import TaskData, read_task
from launcher.plan.target import Described
from models.abr import layers as abr_layers
from models.catalog import FAMILIES
from models.common.layers import Dropout

GPU_BYTES = 80 * 2**30


@dataclass(frozen=True)
class Row:
    """Kernels that one GPU starts in an optimizer step."""

    model: str
    global_batch: int
    micro_batch: int
    """Of the family."""
    eager: float
    gpu_micro_batch: int
    """By the memory of the GPU."""
    gpu_eager: float
    compiled: float
    replayed: float
    """With CUDA graphs."""
    graphs: int
    """That were compiled."""


class Graphs:
    """A backend of torch.compile that counts the kernels of the graphs that are called."""

    def __init__(self) -> None:
        self.compiled = self.calls = self.kernels = 0

    def __call__(self, graph: Any, inputs: Sequence[Any]) -> Any:
        from torch._inductor.compile_fx import compile_fx

        return compile_fx(graph, inputs, inner_compile=self._scheduled)

    def _scheduled(self, graph: torch.fx.GraphModule, inputs: Sequence[Any], **options: Any) -> Any:
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx_inner
        from torch._inductor.scheduler import Scheduler

        codegen = patch.object(Scheduler, "codegen", _raise_kernels)
        with codegen, config.patch(force_disable_caches=True):
            try:
                compile_fx_inner(copy.deepcopy(graph), inputs, **options)
                kernels = 0  # an empty graph
            except _Scheduled as scheduled:
                kernels = scheduled.kernels
        self.compiled += 1

        def call(arguments: list[Any]) -> Any:
            self.calls += 1
            self.kernels += kernels
            with _disable_current_modes():  # its operators are not started one by one
                return graph(*arguments)

        call._boxed_call = True  # type: ignore[attr-defined]
        return call


class _Scheduled(BaseException):
    """Ends a compilation before it generates code; no Exception, which torch would convert."""

    def __init__(self, kernels: int) -> None:
        self.kernels = kernels


def _raise_kernels(scheduler: Any) -> None:
    raise _Scheduled(sum(map(_starts_kernel, scheduler.nodes)))


def _starts_kernel(node: Any) -> bool:
    is_part = type(node.node).__name__ == "MultiOutput"  # of the result of another node
    return not is_part and type(node).__name__ != "NopKernelSchedulerNode"


def _attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *_: Any, **__: Any
) -> Tensor:
    """By the kernel of GPUs that takes masks."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.where(mask, 0.0, -torch.inf).to(query.dtype)
    if mask is not None:
        mask = mask.expand(*query.shape[:-1], key.shape[-2])
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, mask, True)[0]


def _dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    return torch.native_dropout(x, p, True)[0] if training and p else x


@contextmanager
def _as_on_gpu() -> Iterator[None]:
    """Inside, dropout and attention are one operator each, and so is the norm of many tensors."""
    with ExitStack() as stack:
        for owner, name, function in (
            (nn.functional, "scaled_dot_product_attention", _attention),
            (abr_layers, "plain_attention", _attention),
            (nn.functional, "dropout", _dropout),
            (Dropout, "forward", nn.Dropout.forward),
            (clip_grad, "_has_foreach_support", lambda *_: True),
        ):
            stack.enter_context(patch.object(owner, name, function))
        yield


def measure(model: str, described: Described) -> Row:
    """The counts of a family's size, with its defaults on a GPU."""
    args = CliArgs(model=model, sets=["compile=off", "loader.workers=0", "train.preview=false"])
    resolved = resolve(args, described.machine)
    grown = auto.with_larger_batch(resolved, described)
    with read_task(resolved) as data, _as_on_gpu():
        eager = _launches(data, resolved)
        gpu_eager = _launches(data, grown)
        graphs = Graphs()
        outside = _launches(data, grown, graphs)
    passes = grown.batching.accumulation / min(grown.batching.accumulation, MICRO_BATCHES)
    return Row(
        model=model,
        global_batch=resolved.batching.global_batch,
        micro_batch=resolved.batching.micro_batch,
        eager=eager,
        gpu_micro_batch=grown.batching.micro_batch,
        gpu_eager=gpu_eager,
        compiled=outside + passes * graphs.kernels,
        replayed=outside + passes * graphs.calls,
        graphs=graphs.compiled,
    )


def _launches(data: TaskData, resolved: Resolved, graphs: Graphs | None = None) -> float:
    """Kernels of a step, without those of `graphs` if blocks are compiled into such."""
    world = ProcessWorld(RankInfo(), torch.device("cpu"), 0.0)
    subject = data.subject(resolved)
    options = replace(
        engine_options(resolved.settings, resolved, subject.task.channels_last),
        compile=graphs is not None,
    )
    torch.compiler.reset()
    with patch.object(torch, "compile", partial(torch.compile, backend=graphs)):
        return trace_step(subject, local(world, options)).launches


def table(rows: Sequence[Row]) -> str:
    """The launches per sample as a Markdown table."""
    lines = [
        "| model | micro-batch × accumulation | eager | on a GPU | eager | compiled | replayed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        batches = (f"{n} × {row.global_batch // n}" for n in (row.micro_batch, row.gpu_micro_batch))
        first, later = batches
        counts = (row.gpu_eager, row.compiled, row.replayed)
        shown = " | ".join(f"{count / row.global_batch:,.1f}" for count in counts)
        eager = f"{row.eager / row.global_batch:,.1f}"
        lines.append(f"| `{row.model}` | {first} | {eager} | {later} | {shown} |")
    return "\n".join(lines)


def models() -> list[str]:
    """The smallest and the largest size of each family."""
    sizes = {family: [*config_of(family).SIZES] for family in FAMILIES}
    return [f"{family}:{size}" for family in sizes for size in (sizes[family][0], "full")]


def main() -> int:
    """Count, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=models())
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    gpu = replace(detect_machine(), gpus=1, device="cuda", gpu_bf16=True)
    described = Described(gpu, device_bytes=GPU_BYTES, is_here=False)
    rows = []
    for model in options.models:
        rows.append(measure(model, described))
        print(rows[-1], file=sys.stderr, flush=True)
    facts = machine(("torch", "transformers"))
    print(f"{listed(facts)}\n{table(rows)}")
    if options.json:
        save_rows(options.json, command("launches", sys.argv[1:]), facts, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
