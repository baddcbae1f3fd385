"""The machine that a plan is for: this one, or one described by options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.base.diagnostics import Diagnostic
from launcher.config.machine import Machine
from launcher.config.options import GPU_MEMORY, GPUS, NODES, RAM
from launcher.config.provenance import Resolved

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

    @property
    def world_size(self) -> int | None:
        """The ranks on several nodes; None: the settings decide."""
        return None if self.nodes == 1 else self.nodes * max(self.machine.gpus, 1)

    def target(self, resolved: Resolved) -> Target:
        """What the ranks of a run have there."""
        ranks = max(resolved.batching.world_size // self.nodes, 1)
        is_gpu = resolved.device != "cpu"
        device_bytes = self.device_bytes if is_gpu else None
        return Target(self.nodes, ranks, resolved.device, device_bytes, self.machine.ram_bytes)


@dataclass(frozen=True)
class Target:
    """What the ranks of a run have."""

    nodes: int
    ranks_per_node: int
    device: str
    """cuda, xpu, mps or cpu."""
    device_bytes: int | None
    """Memory of one GPU; None: unknown, or the CPU."""
    ram_bytes: int | None
    """Memory of one node; None: unknown."""

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
    machine = here if ram is None else replace(here, ram_bytes=ram)
    if gpus is None and memory is not None and not here.gpus:
        gpus = 1
    if gpus is not None:
        machine = replace(machine, gpus=gpus, device="cuda", gpu_bf16=True)
    return Described(machine, nodes, memory)


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
    found = _SIZE.fullmatch(text.strip())
    number, unit = found.groups() if found else ("", "")
    named = {name.casefold(): name for name in _UNITS}
    known = named.get(unit.casefold()) or named.get(f"{unit}ib".casefold()) if unit else None
    if found and known and float(number) > 0:
        return round(float(number) * _UNITS[known])
    why = "has no unit" if found and not unit else "is not a size"
    fix = f"{flag} {number}GiB" if found and not unit else None
    diagnostics.append(
        Diagnostic(
            f"{flag} {text} {why}",
            where=f"{flag} {text}",
            allowed="a number with KiB, MiB, GiB, TiB, or KB, MB, GB, TB",
            fix=fix,
        )
    )
    return None
