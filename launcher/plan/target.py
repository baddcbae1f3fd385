"""The machine that a plan is for: this one, or one described by options."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, counted, fold, unknown
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import Resolved
from gearshift.training import throughput
from gearshift.training.throughput import Gpu

MARGIN = 0.06
"""Of a node's main memory that stays free: fragmentation, other programs."""
_GPU = "--gpu"
_MEMORY = "--gpu-memory"
_NODES = "--nodes"
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

    def resolve(self, resolve: Callable[[int | None], Resolved]) -> Resolved:
        """The settings of a run there: every node starts engine.nproc ranks, or one per GPU.

        `resolve` gives them for a world size; None: one node. Raises SettingsError.
        """
        resolved = resolve(None)
        if self.nodes == 1:
            return resolved
        resolved = resolve(self.nodes * resolved.nproc)
        engine = resolved.settings.engine.name
        most = ENGINES[engine].processes
        where = f"{_NODES} {self.nodes}"
        if most is not None and self.nodes > most:
            raise SettingsError.of(
                f"{where} is more than the {counted(most, 'rank')} of engine {engine}",
                key="engine.name",
                value=engine,
                where=where,
                allowed=f"{most}, or another engine",
                fix=f"{_NODES} {most}",
            )
        return resolved

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

    def number(flag: str, adapter: TypeAdapter[Any], allowed: str) -> Any:
        """The count or size that an option has; None: it has none, or an invalid one."""
        text = values.get(flag)
        if text is None:
            return None
        try:
            return adapter.validate_python(text.strip())
        except ValueError:
            where = f"{flag} {text}"
            fix = None
            if adapter is _SIZE and text.isdigit():
                fix = f"{where}GiB"
            diagnostics.append(
                Diagnostic(f"{where} is invalid", where=where, allowed=allowed, fix=fix)
            )
            return None

    gpus = number("--gpus", _COUNT, "1 or more")
    nodes = number(_NODES, _COUNT, "1 or more")
    memory = number(_MEMORY, _SIZE, _UNITS)
    ram = number("--ram", _SIZE, _UNITS)
    gpu = _gpu(values, diagnostics) if _GPU in values else None
    if gpu and not memory:
        memory = gpu.memory_bytes
    # A memory or a name means GPUs: as many as here, or one.
    if not gpus and (memory or gpu):
        gpus = here.gpus or 1

    machine = here
    if ram:
        machine = replace(machine, ram_bytes=ram)
    if gpus or (nodes or 1) > 1:
        machine = replace(machine, gpu_bytes=memory, gpu_others_bytes=())
    if gpus:
        has_bf16 = not gpu or "bf16" in gpu.peaks
        machine = replace(machine, gpus=gpus, device="cuda", gpu_bf16=has_bf16)
    return Described(machine, nodes or 1, gpu)


def _gpu(values: Mapping[str, str], diagnostics: list[Diagnostic]) -> Gpu | None:
    """The named GPU, if there is one of the name."""
    text = values[_GPU]
    where = f"{_GPU} {text}"
    name = _joined(text)
    gpus = {_joined(known): gpu for known, gpu in throughput.gpus().items()}
    names = [gpu.name for key, gpu in gpus.items() if name in key]
    gpu = gpus.get(name)
    if not gpu:
        similar = next(iter(names), None)
        diagnostics.append(
            replace(
                unknown(_GPU, text, names or throughput.gpus(), where=where),
                did_you_mean=similar,
                fix=similar and f"{_GPU} {shlex.quote(similar)}",
            )
        )
    elif gpu.memory_bytes is None and _MEMORY not in values:
        variants = f"{', '.join(names)}; or {_MEMORY} SIZE beside it"
        diagnostics.append(
            Diagnostic(f"{gpu.name} differs in memory", where=where, allowed=variants)
        )
    return gpu


def _with_unit(text: str) -> str:
    """The size with its unit: a letter alone is binary."""
    if text[-1:].isdigit():
        raise ValueError("no unit")
    return f"{text}iB" if text[-1:] in "kKmMgGtT" else text


_COUNT: TypeAdapter[Any] = TypeAdapter(Annotated[int, Field(ge=1)])
_SIZE: TypeAdapter[Any] = TypeAdapter(Annotated[ByteSize, Field(ge=1), BeforeValidator(_with_unit)])
_UNITS = "a number with KiB, MiB, GiB, TiB, or KB, MB, GB, TB"


def _joined(name: str) -> str:
    """`name` without case, `-`, `_` and spaces."""
    return fold(name).replace(" ", "")
