"""The machine that a plan is for: this one, or one described by options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, SettingsError, counted, fold, nearest_match
from launcher.config.machine import Machine
from launcher.config.options import GPU, GPU_MEMORY, GPUS, NODES, RAM
from launcher.config.provenance import Resolved
from training import throughput
from training.throughput import Gpu

_UNITS = {
    **{f"{letter}iB": 2 ** (10 * power) for power, letter in enumerate("KMGT", start=1)},
    **{f"{letter}B": 10 ** (3 * power) for power, letter in enumerate("KMGT", start=1)},
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


@dataclass(frozen=True)
class Described:
    """The nodes that options describe; what they leave out is as here."""

    machine: Machine
    nodes: int = 1
    device_bytes: int | None = None
    """Memory of one GPU; None: unknown."""
    gpu: Gpu | None = None
    """The kind of GPU; None: unknown."""
    is_here: bool = True
    """Its GPUs are those of this machine."""

    def resolve(self, resolve: Callable[[int | None], Resolved]) -> Resolved:
        """The settings of a run there: every node starts engine.nproc ranks, or one per GPU.

        `resolve` gives them for a world size; None: one node. Raises SettingsError.
        """
        resolved = resolve(None)
        if self.nodes == 1:
            return resolved
        resolved = resolve(self.nodes * resolved.nproc)
        engine = resolved.settings.engine.name
        max_ranks = ENGINES[engine].processes
        if max_ranks is not None and self.nodes > max_ranks:
            raise SettingsError([self._too_many(engine, max_ranks)])
        return resolved

    def _too_many(self, engine: str, max_ranks: int) -> Diagnostic:
        where = f"{NODES.flag} {self.nodes}"
        others = ", ".join(name for name, entry in ENGINES.items() if entry.processes is None)
        return Diagnostic(
            f"{where} is more than the {counted(max_ranks, 'rank')} of engine {engine}",
            key="engine.name",
            value=engine,
            where=where,
            allowed=f"{max_ranks}; or another engine: {others}",
            fix=f"{NODES.flag} {max_ranks}",
        )

    def target(self, resolved: Resolved) -> PlanTarget:
        """What the ranks of a run have there."""
        ranks = max(resolved.batching.world_size // self.nodes, 1)
        is_gpu = resolved.device != "cpu"
        here = self.machine
        if self.device_bytes is not None or resolved.device != "cuda" or not self.is_here:
            here = replace(here, gpu_bytes=self.device_bytes, gpu_others_bytes=())
        device_bytes = here.tensor_bytes(ranks, self.nodes) if is_gpu else None
        gpu = self.gpu if is_gpu else None
        return PlanTarget(self.nodes, ranks, resolved.device, device_bytes, here.ram_bytes, gpu)


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
    gpus = _count(values, GPUS.flag, diagnostics)
    nodes = _count(values, NODES.flag, diagnostics) or 1
    memory = _bytes(values, GPU_MEMORY.flag, diagnostics)
    ram = _bytes(values, RAM.flag, diagnostics)
    gpu = _gpu(values, memory, diagnostics)
    machine = here if ram is None else replace(here, ram_bytes=ram)
    if gpus is None and (memory is not None or gpu is not None):
        gpus = here.gpus or 1
    if gpus is not None:
        has_bf16 = gpu is None or "bf16" in gpu.peaks
        machine = replace(machine, gpus=gpus, device="cuda", gpu_bf16=has_bf16)
    if memory is None and gpu is not None:
        memory = gpu.memory_bytes
    return Described(machine, nodes, memory, gpu, is_here=nodes == 1 and gpus is None)


def _gpu(
    values: Mapping[str, str], memory: int | None, diagnostics: list[Diagnostic]
) -> Gpu | None:
    """The GPU of --gpu; an error if it is unknown, or if its name leaves its memory open."""
    text = values.get(GPU.flag)
    if text is None:
        return None
    known = throughput.gpus()
    name = {_joined(each): each for each in known}.get(_joined(text))
    where = f"{GPU.flag} {text}"
    if name is None:
        inside = [each for each in known if _joined(text) in _joined(each)]
        boards = [each for each in inside if "HBM" in each or "SXM" in each]  # the commonest
        suggestion = (boards or inside)[0] if inside else nearest_match(text, known)
        fix = suggestion and f"{GPU.flag} {shlex.quote(suggestion)}"
        allowed = ", ".join(inside or known)
        is_part = len(inside) > 1
        problem = f"several GPUs are named '{text}'" if is_part else f"unknown GPU '{text}'"
        diagnostics.append(
            Diagnostic(problem, where=where, allowed=allowed, did_you_mean=suggestion, fix=fix)
        )
        return None
    gpu = known[name]
    if gpu.memory_bytes is None and memory is None and GPU_MEMORY.flag not in values:
        variants = [each for each in known if each.startswith(f"{name} ")]
        also = f"{', '.join(variants)}; or " if variants else ""
        diagnostics.append(
            Diagnostic(
                f"GPUs of the name {name} differ in memory",
                where=where,
                allowed=f"{also}{GPU_MEMORY.flag} SIZE beside it",
                fix=f"{where} {GPU_MEMORY.flag} SIZE",
            )
        )
    return gpu


def _joined(name: str) -> str:
    """`name` without case, `-`, `_` and spaces."""
    return fold(name).replace(" ", "")


def _count(values: Mapping[str, str], flag: str, diagnostics: list[Diagnostic]) -> int | None:
    text = values.get(flag)
    if text is None:
        return None
    if text.isdigit() and int(text) > 0:
        return int(text)
    diagnostics.append(
        Diagnostic(f"{flag} {text} is not a count", where=f"{flag} {text}", allowed="1 or more")
    )
    return None


def _bytes(values: Mapping[str, str], flag: str, diagnostics: list[Diagnostic]) -> int | None:
    text = values.get(flag)
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    number, unit = match.groups() if match else ("", "")
    named = {name.casefold(): name for name in _UNITS}
    known = named.get(unit.casefold()) or named.get(f"{unit}ib".casefold()) if unit else None
    if match and known and float(number) > 0:
        return round(float(number) * _UNITS[known])
    problem = "has no unit" if match and not unit else "is not a size"
    fix = f"{flag} {number}GiB" if match and not unit else None
    diagnostics.append(
        Diagnostic(
            f"{flag} {text} {problem}",
            where=f"{flag} {text}",
            allowed="a number with KiB, MiB, GiB, TiB, or KB, MB, GB, TB",
            fix=fix,
        )
    )
    return None
