"""Adapts defaults to the machine; a user's setting that cannot work here is an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engines.catalog import ENGINES, by_processes
from launcher.base.diagnostics import Diagnostic, counted, plain, shown
from launcher.config import errors, provenance
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO, largest_divisor
from launcher.config.machine import Machine
from launcher.config.provenance import (
    MACHINE_LAYER,
    MODE_LAYER,
    USER_LAYERS,
    Batching,
    Chosen,
    Origin,
    Setting,
)
from launcher.config.schema import PRETRAINED, config_of, setting_infos

_CHECKPOINTING = "memory.activation_checkpointing"
_REHEARSED = 16
"""Processes per core with which a larger machine can be rehearsed, slowly."""


@dataclass(frozen=True)
class RunWorld:
    """The processes and the device of a run."""

    size: int
    """All processes."""
    nproc: int
    """Processes on this machine."""
    device: str
    """cuda, xpu, mps or cpu."""


@dataclass
class Adaptation:
    """The settings, the machine and the results of the rules below."""

    values: dict[str, Setting]
    machine: Machine
    world: RunWorld
    notes: list[str]
    diagnostics: list[Diagnostic]

    def get(self, key: str) -> Any:
        """The current value."""
        return self.values[key].value

    def is_set(self, key: str) -> bool:
        """Whether the user set it."""
        return self.values[key].origin.layer in USER_LAYERS

    def replace(self, key: str, new: Any, reason: str) -> None:
        """Override a default, and note why if the mode that the user named set it."""
        old = self.values[key]
        self.values[key] = provenance.overridden(old, new, Origin(MACHINE_LAYER, reason))
        if old.origin.layer == MODE_LAYER:
            self.notes.append(
                f"{key}: {plain(new)} instead of {plain(old.value)} of {old.origin.where}: {reason}"
            )

    def reject(
        self, key: str, new: Any, problem: str, reason: str, *, allowed: str | None = None
    ) -> None:
        """Report a user's setting that is impossible here, for a `problem`; replace a default."""
        if self.is_set(key):
            self.diagnostics.append(impossible(self.values, key, problem, new, allowed))
        else:
            self.replace(key, new, reason)


def impossible(
    values: dict[str, Setting], key: str, problem: str, did_you_mean: Any, allowed: str | None
) -> Diagnostic:
    """The error of an allowed value that is impossible here."""
    value = values[key]
    below = Setting(*value.replaced[0]) if value.replaced else value
    family = values["model.family"].value
    return errors.about(
        values,
        key,
        f"{errors.display_name(key)} {shown(value.value)} {problem}",
        overrides=errors.overrides(below),
        allowed=allowed or errors.allowed(setting_infos(family)[key]),
        did_you_mean=plain(did_you_mean),
        fix=errors.fix_line(key, value.origin, did_you_mean),
    )


def adapt(
    values: dict[str, Setting],
    machine: Machine,
    world_size: int | None = None,
    chosen: Chosen | None = None,
) -> Adaptation:
    """Adapt `values` to the machine and to data that is downloaded.

    `world_size` and `chosen` as in resolve.resolve.
    """
    notes = list[str]()
    if values["download.fetch"].value:
        from launcher.config import feature_checks  # for the runs that download their data

        notes += feature_checks.point_data_path(values)
    diagnostics = list[Diagnostic]()
    world = _decide_world(values, machine, world_size, diagnostics, chosen)
    adaptation = Adaptation(values, machine, world, notes, diagnostics)
    for rule in RULES:
        rule(adaptation)
    if chosen is not None:
        _use_chosen(adaptation, chosen)
    return adaptation


def _decide_world(
    values: dict[str, Setting],
    machine: Machine,
    world_size: int | None,
    diagnostics: list[Diagnostic],
    chosen: Chosen | None = None,
) -> RunWorld:
    """Decide device, processes and engine; fill in those that are not set.

    `chosen`: what engine auto chose; without it, the number of processes decides.
    """
    device = values["device"].value
    device = machine.device if device == "auto" else device
    engine = ENGINES.get(chosen.engine if chosen else values["engine.name"].value)
    nproc = values["engine.nproc"].value
    if nproc is None:
        gpus = machine.gpus if device in ("cuda", "xpu") else 0
        nproc, reason = max(1, gpus), f"one per GPU: {gpus}" if gpus else "no GPU: one process"
        if engine is not None and engine.processes is not None:
            nproc, reason = engine.processes, f"engine {engine.name}"
        if world_size is None:
            _fill(values, "engine.nproc", nproc, reason)
    elif world_size is None:
        _check_nproc(values, machine, device, diagnostics)
    size = world_size or nproc
    if chosen is not None:
        _fill(values, "engine.name", chosen.engine, chosen.where)
    elif engine is None:
        _fill(values, "engine.name", by_processes(size), counted(size, "process"))
    return RunWorld(size, nproc, device)


def _use_chosen(adaptation: Adaptation, chosen: Chosen) -> None:
    """Set what engine auto chose, after the rules: it was planned with what they set."""
    for key, value in chosen.settings.items():
        if adaptation.get(key) != value:
            _fill(adaptation.values, key, value, chosen.where)
    adaptation.notes.append(chosen.line)


def batch_notes(values: Mapping[str, Setting], solved: Batching) -> Iterator[str]:
    """Announce a micro-batch that differs from the one that the user or the mode set."""
    asked = values[MICRO]
    is_chosen = asked.origin.layer in (MODE_LAYER, *USER_LAYERS)
    if is_chosen and asked.value not in (None, solved.micro_batch):
        yield f"{MICRO}: {solved.micro_batch} instead of {asked.value}: {solved}"


def _fill(values: dict[str, Setting], key: str, new: Any, reason: str) -> None:
    values[key] = provenance.overridden(values[key], new, Origin(MACHINE_LAYER, reason))


def _check_nproc(
    values: dict[str, Setting], machine: Machine, device: str, diagnostics: list[Diagnostic]
) -> None:
    nproc = values["engine.nproc"].value
    limit, what = machine.cores, "cores"
    if device == "mps":
        limit, what = 1, "GPU"
    elif device in ("cuda", "xpu") and machine.gpus:
        limit, what = machine.gpus, "GPUs"
    if nproc > limit:
        problem = f"is more than the {limit} {what} of this machine"
        diagnostic = impossible(values, "engine.nproc", problem, limit, f"1 to {limit}")
        if what == "cores" and nproc <= limit * _REHEARSED:
            diagnostic = replace(
                diagnostic, severity="warning", message=f"{diagnostic.message}, which they share"
            )
        diagnostics.append(diagnostic)


def _precision(adaptation: Adaptation) -> None:
    precision, device = adaptation.get("precision"), adaptation.world.device
    cpu = "bf16" if adaptation.machine.cpu_bf16 else "fp32"
    if precision == "auto":
        has_bf16 = adaptation.machine.gpu_bf16 and device in ("cuda", "xpu")
        reason = "a GPU with bf16" if has_bf16 else "no GPU with bf16"
        _fill(adaptation.values, "precision", "bf16" if has_bf16 else "fp32", reason)
    elif device == "cpu" and precision in ("fp16", "tf32", "fp8"):
        replacement = "fp32" if precision == "tf32" else cpu
        problem, allowed = "needs a GPU, and this run is on the CPU", "fp32, bf16 on a CPU"
        native = ", and this CPU computes in bf16" if replacement == "bf16" else ""
        adaptation.reject("precision", replacement, problem, f"no GPU{native}", allowed=allowed)
    elif device == "cpu" and precision == "bf16" and cpu == "fp32":
        if not adaptation.is_set("precision"):
            adaptation.replace("precision", "fp32", "no GPU, and this CPU has no bf16")
    elif adaptation.is_set("precision"):
        return
    elif device == "mps" and precision in ("fp16", "bf16", "tf32", "fp8"):
        adaptation.replace("precision", "fp32", "not supported on mps")
    elif device == "cuda" and precision == "bf16" and not adaptation.machine.gpu_bf16:
        adaptation.replace("precision", "fp16", "no GPU with bf16")


def _micro_batch(adaptation: Adaptation) -> None:
    """On a CPU, a mode with larger steps keeps the micro-batch of the default.

    The global batch is the one of the mode. A larger micro-batch occupies an idle GPU; to a CPU it
    only costs memory. The default needs no checkpointing for it.
    """
    micro, accumulation = (adaptation.values[key] for key in (MICRO, ACCUMULATION))
    modes = MODE_LAYER in (micro.origin.layer, accumulation.origin.layer)
    is_set = adaptation.is_set(MICRO) or adaptation.is_set(ACCUMULATION)
    if adaptation.world.device != "cpu" or not modes or is_set:
        return
    defaults = [
        provenance.value_without(setting, (MODE_LAYER,)) or 1 for setting in (micro, accumulation)
    ]
    whole = adaptation.get(GLOBAL) or (micro.value or 1) * (accumulation.value or 1)
    if whole <= math.prod(defaults):
        return
    smaller = largest_divisor(whole, min(micro.value or 1, defaults[0]))
    reason = "no GPU: larger micro-batches take memory, and a CPU gains little from them"
    adaptation.replace(MICRO, smaller, reason)
    adaptation.replace(ACCUMULATION, whole // smaller, f"{MICRO} is {smaller}: the same samples")
    checkpointing = adaptation.values[_CHECKPOINTING]
    if checkpointing.origin.layer == MODE_LAYER:
        default = provenance.value_without(checkpointing, (MODE_LAYER,))
        adaptation.replace(_CHECKPOINTING, default, f"{MICRO} is not larger than the default's")


def _workers(adaptation: Adaptation) -> None:
    max_workers = max(1, adaptation.machine.cores // adaptation.world.nproc)
    if adaptation.get("loader.workers") > max_workers and not adaptation.is_set("loader.workers"):
        ranks = counted(adaptation.world.nproc, "process")
        reason = f"{adaptation.machine.cores} cores for {ranks}"
        adaptation.replace("loader.workers", max_workers, reason)


def _pin_memory(adaptation: Adaptation) -> None:
    key = "loader.pin_memory"
    if adaptation.get(key) and adaptation.world.device != "cuda" and not adaptation.is_set(key):
        adaptation.replace(key, False, f"pinned memory has no use on {adaptation.world.device}")


def _attention(adaptation: Adaptation) -> None:
    key = "memory.attention"
    precision = adaptation.get("precision")
    if adaptation.get(key) != "flash":
        return
    if adaptation.world.device != "cuda":
        problem = f"needs a GPU, and this run is on {adaptation.world.device}"
        adaptation.reject(key, "auto", problem, "no GPU")
    elif precision in ("fp32", "tf32") and not adaptation.is_set(key):
        adaptation.replace(
            key, "auto", f"flash attention needs a 16-bit precision, and precision is {precision}"
        )


def _cache(adaptation: Adaptation) -> None:
    key = "memory.empty_cache_every"
    if adaptation.get(key) is None or adaptation.world.device != "cpu":
        return
    problem = "needs a GPU, and this run is on the CPU"
    adaptation.reject(key, None, problem, "a CPU has no allocator cache")


def _optimizer(adaptation: Adaptation) -> None:
    key, engine = "optim.name", ENGINES.get(adaptation.get("engine.name"))
    name = adaptation.get(key)
    able = {
        "adafactor": [e.name for e in ENGINES.values() if not e.shards_parameters],
        "muon": [e.name for e in ENGINES.values() if e.ds_config is None],
    }
    if engine is None or engine.name in able.get(name, ENGINES):
        return
    whole = "rows and columns" if name == "adafactor" else "matrices"
    reason = f"engine {engine.name} shards weights, and {name} needs whole {whole}"
    allowed = f"adamw, sgd under engine {engine.name}; {name} under {', '.join(able[name])}"
    adaptation.reject(key, "adamw", f"is impossible: {reason}", reason, allowed=allowed)


def _compile(adaptation: Adaptation) -> None:
    if (
        adaptation.get("compile") == "on"
        and adaptation.world.device == "cpu"
        and not adaptation.machine.compiler
    ):
        problem = "needs a C++ compiler, and none is installed"
        adaptation.reject("compile", "off", problem, "no C++ compiler")
    elif adaptation.get("compile") == "auto":
        pays = adaptation.world.device == "cuda" and adaptation.machine.compiler
        reason = "a GPU and a compiler" if pays else f"slower on {adaptation.world.device}"
        _fill(adaptation.values, "compile", "on" if pays else "off", reason)


def _epochs(adaptation: Adaptation) -> None:
    """The user's epochs override a shipped limit of steps."""
    if (
        adaptation.is_set("train.epochs")
        and adaptation.get("train.max_steps") is not None
        and not adaptation.is_set("train.max_steps")
    ):
        where = adaptation.values["train.epochs"].origin.where
        adaptation.replace("train.max_steps", None, f"{where} sets the length")


def _max_steps(adaptation: Adaptation) -> None:
    """The user's limit of steps overrides shipped epochs."""
    if (
        adaptation.is_set("train.max_steps")
        and adaptation.get("train.max_steps") is not None
        and adaptation.get("train.epochs") is not None
        and not adaptation.is_set("train.epochs")
    ):
        where = adaptation.values["train.max_steps"].origin.where
        adaptation.replace("train.epochs", None, f"{where} sets the length")


def _context(adaptation: Adaptation) -> None:
    """Samples are no longer than the context of a pretrained model; also those of the user."""
    key, values = "data.seq_len", adaptation.values
    context_of = getattr(config_of(adaptation.get("model.family")), "context_of", None)
    if context_of is None or adaptation.get(PRETRAINED) is None:
        return
    length, folder = adaptation.get(key), Path(adaptation.get(PRETRAINED)).expanduser()
    limit = context_of(folder)
    if limit is None or length is None or length <= limit:
        return
    if adaptation.is_set(key):
        problem = f"is longer than the context of {PRETRAINED}: samples have {limit} tokens instead"
        parts = {
            "allowed": f"8 to {limit}, the positions of {folder / 'config.json'}",
            "fix": errors.fix_line(key, values[key].origin, limit),
            "severity": "warning",
        }
        adaptation.diagnostics.append(errors.about_value(values, key, problem, **parts))
    else:
        adaptation.notes.append(f"{key}: {limit} instead of {length}, the context of {folder}")
    _fill(values, key, limit, f"the context of {folder}")


def _debug(adaptation: Adaptation) -> None:
    if not adaptation.get("train.debug"):
        return
    where = adaptation.values["train.debug"].origin.where
    for key, value in (("loader.workers", 0), ("train.deterministic", True)):
        if adaptation.get(key) != value and not adaptation.is_set(key):
            adaptation.replace(key, value, where)


RULES: tuple[Callable[[Adaptation], None], ...] = (
    _precision,
    _micro_batch,
    _debug,
    _workers,
    _pin_memory,
    _attention,
    _optimizer,
    _cache,
    _compile,
    _epochs,
    _max_steps,
    _context,
)
