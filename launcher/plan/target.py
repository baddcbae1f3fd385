"""The machine that a plan is for: this one, or one described by options."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter

from gearshift.launcher.base.diagnostics import Diagnostic, fold, invalid, unknown
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import Resolved
from gearshift.training import throughput
from gearshift.training.throughput import Gpu

MARGIN = 0.06
"""Of a node's main memory that stays free: fragmentation, other programs."""
GPU = "--gpu"
TRACED = "traced on tensors without values"
MEASURED = "measured on this CPU"
UNCOMPILED = "planned as if not compiled: an upper bound"


@dataclass(frozen=True)
class Described:
    """The nodes that options describe; what they leave out is as here."""

    machine: Machine
    nodes: int = 1
    gpu: Gpu | None = None
    """The kind of GPU; None: unknown."""

    def target(self, resolved: Resolved) -> PlanTarget:
        """What the ranks of a run have there."""
        ranks = max(resolved.batching.world_size // self.nodes, 1)
        here = self.machine
        target = PlanTarget(self.nodes, ranks, resolved.device, None, here.ram_bytes)
        if resolved.device != "cuda":
            return target
        return replace(target, device_bytes=here.tensor_bytes(ranks, self.nodes), gpu=self.gpu)


@dataclass(frozen=True)
class PlanTarget:
    """What the ranks of a run have."""

    nodes: int
    ranks_per_node: int
    device: str
    """cuda, xpu, mps or cpu."""
    device_bytes: int | None
    """Memory of one GPU for the tensors of a rank; None: unknown, or the CPU."""
    ram_bytes: int | None
    """Memory of one node; None: unknown."""
    gpu: Gpu | None = None
    """The kind of GPU; None: unknown, or the CPU."""

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.nodes * self.ranks_per_node


def describe(values: Mapping[str, str], here: Machine, diagnostics: list[Diagnostic]) -> Described:
    """The machine of the options in `values`; errors are added to `diagnostics`."""
    numbers: dict[str, Any] = {}
    for flag, adapter in _NUMBERS.items():
        text = values.get(flag)
        if text is None:
            continue
        try:
            numbers[flag] = adapter.validate_python(text.strip())
        except ValueError:
            allowed = _UNITS if adapter is _SIZE else "1 or more"
            fix = None
            if text.isdigit() and adapter is _SIZE:
                fix = f"{flag} {text}GiB"
            diagnostics.append(replace(invalid(flag, text, allowed), fix=fix))

    gpus = numbers.get("--gpus")
    nodes = numbers.get("--nodes", 1)
    memory = numbers.get("--gpu-memory")
    gpu = _gpu(values[GPU], diagnostics) if GPU in values else None
    if gpu and not memory:
        memory = gpu.memory_bytes
    # A memory or a name means GPUs: as many as here, or one.
    if not gpus and (memory or gpu):
        gpus = here.gpus or 1

    machine = replace(here, ram_bytes=numbers.get("--ram", here.ram_bytes))
    if gpus or nodes > 1:
        machine = replace(machine, gpu_bytes=memory, gpu_others_bytes=())
    if gpus:
        has_bf16 = not gpu or "bf16" in gpu.peaks
        machine = replace(machine, gpus=gpus, device="cuda", gpu_bf16=has_bf16)
    return Described(machine, nodes, gpu)


def _gpu(text: str, diagnostics: list[Diagnostic]) -> Gpu | None:
    """The GPU of this name, if there is one; its memory may be unknown."""
    gpus = {_joined(gpu.name): gpu for gpu in throughput.gpus().values()}
    gpu = gpus.get(_joined(text))
    if not gpu:
        names = [other.name for key, other in gpus.items() if _joined(text) in key]
        error = unknown(GPU, text, names or throughput.gpus(), key=GPU)
        if names:
            error = replace(error, did_you_mean=names[0], fix=f"{GPU} {shlex.quote(names[0])}")
        diagnostics.append(error)
    return gpu


def _with_unit(text: str) -> str:
    """The size with its unit: a letter alone is binary."""
    if text[-1:].isdigit():
        raise ValueError("no unit")
    return f"{text}iB" if text[-1:] in "kKmMgGtT" else text


_COUNT: TypeAdapter[Any] = TypeAdapter(Annotated[int, Field(ge=1)])
_SIZE: TypeAdapter[Any] = TypeAdapter(Annotated[ByteSize, Field(ge=1), BeforeValidator(_with_unit)])
_NUMBERS = {"--gpus": _COUNT, "--nodes": _COUNT, "--gpu-memory": _SIZE, "--ram": _SIZE}
_UNITS = "a number with KiB, MiB, GiB, TiB, or KB, MB, GB, TB"


def _joined(name: str) -> str:
    """`name` without case, `-`, `_` and spaces."""
    return fold(name).replace(" ", "")
