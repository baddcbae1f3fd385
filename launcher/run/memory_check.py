"""The check before a run: weights, gradients and optimizer state against the memory there is."""

from __future__ import annotations

from collections.abc import Iterator

from engines.catalog import ENGINES, Entry, StateBytes, missing
from launcher.base.diagnostics import PROGRAM, Diagnostic, counted
from launcher.config.machine import Machine
from launcher.config.options import FORCE
from launcher.config.provenance import Resolved
from launcher.config.schema import model_name
from training.logging.quantities import size

FREE = 0.03
"""The share of a memory that a run leaves free, or it is refused."""
_NAME = "engine.name"


def check_memory(
    resolved: Resolved, machine: Machine, parameters: int | None, ranks_per_node: int
) -> Iterator[Diagnostic]:
    """An error if the state of training alone does not fit this machine, whatever the batch.

    Arithmetic from the number of `parameters` (None: unknown, and nothing is checked) and the
    placement of the engine. What activations need is found by `plan`, `--dry-run` and engine auto.
    """
    if parameters is None:
        return
    engine = ENGINES[resolved.settings.engine.name]
    needed = _state(resolved, engine, parameters)
    lacks = list(_lacks(needed, resolved, machine, ranks_per_node))
    if not lacks:
        return
    others = (e for e in ENGINES.values() if e.processes is None and not missing(e))
    fitting = next(
        (
            other.name
            for other in others
            if not any(
                _lacks(_state(resolved, other, parameters), resolved, machine, ranks_per_node)
            )
        ),
        None,
    )
    yield Diagnostic(
        f"{model_name(resolved.settings.model)} does not fit under engine {engine.name}: weights, "
        f"gradients and optimizer state take {'; '.join(lacks)}",
        key=_NAME,
        value=engine.name,
        where=resolved.values[_NAME].origin.where,
        allowed=f"an engine and a size that fit, see  {PROGRAM} plan; "
        f"to start anyway: {FORCE.flag}",
        fix=None if fitting is None else f"--engine {fitting}",
    )


def _state(resolved: Resolved, engine: Entry, parameters: int) -> StateBytes:
    """What one rank of `resolved` would hold under `engine`, at least."""
    settings = resolved.settings
    is_half = settings.precision not in ("fp32", "tf32") and engine.shards_parameters
    return engine.placement.state_bytes(
        parameters, resolved.world_size, 2 if is_half else 4, settings.optim.least_slots
    )


def _lacks(
    needed: StateBytes, resolved: Resolved, machine: Machine, ranks_per_node: int
) -> Iterator[str]:
    """Each kind of memory of which there is too little: what is needed, and what there is."""
    is_cpu = resolved.device == "cpu"
    host = ranks_per_node * (needed.host + (needed.device if is_cpu else 0))
    gpu_bytes = machine.gpu_bytes if resolved.device == "cuda" else None
    if gpu_bytes is not None and needed.device > gpu_bytes * (1 - FREE):
        yield f"{size(needed.device)} of {size(gpu_bytes)} on a GPU"
    if machine.ram_bytes is not None and host > machine.ram_bytes * (1 - FREE):
        ranks = counted(ranks_per_node, "process")
        yield f"{size(host)} of {size(machine.ram_bytes)} in main memory ({ranks})"
