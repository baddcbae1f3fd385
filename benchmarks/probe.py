"""What a step takes apart from time: memory, graphs, waits of the host, and its kernels."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.utils import counters
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.clock import StepClock

ATTENTION = re.compile(r"attention|flash|fmha|sdpa|flex|triton_tem", re.IGNORECASE)
SYNCHRONIZED = "called a synchronizing CUDA operation"
"""The warning of torch.cuda.set_sync_debug_mode."""
WATCHED = 2
"""Steps in which waits of the host are counted."""
STEPS = 1 + WATCHED + 1 + 1
"""Steps after the timed ones; the first of them may be a logged one."""
SHOWN = 3
"""Names of kernels, and places where the host waits, that are kept."""
ROOT = Path(__file__).parents[1]


def watch(clock: StepClock, vocabulary: int, figures: dict[str, Any]) -> Iterator[None]:
    """Fill `figures`; advance once after each step of `clock`, before its own reading is used.

    `seconds` per step; `peak_bytes` and `reserved_bytes` of the timed steps; `graphs` compiled
    until the warm-up ended and `later_graphs` in timed steps; `waits` of the host for the GPU in
    a step, by place; `busy_s` and `launches` of the kernels of a step; names of `attention` and
    `head` kernels, the longest first. The head's are those that read or write a tensor with an axis
    of `vocabulary` elements. Without a GPU, memory and waits are None and operations replace
    kernels.
    """
    is_cuda = clock.device == "cuda"
    for _ in range(clock.first):
        yield
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    graphs = counters["stats"]["unique_graphs"]
    for _ in range(clock.last - clock.first):
        yield
    figures |= {
        "seconds": clock.seconds_per_step,
        "peak_bytes": torch.cuda.max_memory_allocated() if is_cuda else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if is_cuda else None,
        "graphs": graphs,
        "later_graphs": counters["stats"]["unique_graphs"] - graphs,
    }
    yield
    with _waits(is_cuda) as places:
        for _ in range(WATCHED):
            yield
    figures["waits"] = None
    if is_cuda:
        figures["waits"] = {place: n / WATCHED for place, n in places.most_common()}
    yield
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * is_cuda
    with profile(activities=activities, record_shapes=True) as profiler:
        yield
        if is_cuda:
            torch.cuda.synchronize()
    figures |= kernels(profiler, is_cuda, vocabulary)


@contextmanager
def _waits(is_cuda: bool) -> Iterator[Counter[str]]:
    """Count calls that make the host wait for the GPU, by file and line."""
    places: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if is_cuda:
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            if is_cuda:
                torch.cuda.set_sync_debug_mode("default")
            found = [w for w in caught if SYNCHRONIZED in str(w.message)]
            places.update(f"{_short(w.filename)}:{w.lineno}" for w in found)


def _short(path: str) -> str:
    """`path` below this checkout or its package folder."""
    whole = Path(path)
    if whole.is_relative_to(ROOT):
        return str(whole.relative_to(ROOT))
    return path.rpartition("site-packages/")[2]


def kernels(profiler: profile, is_cuda: bool, vocabulary: int) -> dict[str, Any]:
    """Seconds and number of all kernels, and the names of those of attention and head."""
    attention: Counter[str] = Counter()
    head: Counter[str] = Counter()
    busy, launches = 0.0, 0
    for event in profiler.events() or ():
        if getattr(event, "is_user_annotation", False):
            continue  # a range around kernels, not one of them
        took = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        if event.device_type == (DeviceType.CUDA if is_cuda else DeviceType.CPU):
            busy += took
            launches += 1
            if ATTENTION.search(event.name):
                attention[event.name] += took
        if _has_axis(event.input_shapes, vocabulary) and "embedding" not in event.name:
            if not is_cuda:
                head[event.name] += took
            for kernel in event.kernels:
                head[kernel.name] += kernel.duration
    return {
        "busy_s": busy / 1e6,
        "launches": launches,
        "attention": [name for name, _ in attention.most_common(SHOWN)],
        "head": [name for name, _ in head.most_common(SHOWN)],
    }


def _has_axis(shapes: Any, size: int) -> bool:
    """Whether a tensor of `shapes`, the recorded inputs of an operation, has an axis of `size`."""
    return any(isinstance(shape, list | tuple) and size in shape for shape in shapes or ())
