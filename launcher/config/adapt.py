"""Fits what the program asks for to the machine; what a person asks for is refused or kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engines.catalog import ENGINES
from launcher.base.diagnostics import Diagnostic, plain, shown
from launcher.config import errors, provenance
from launcher.config.batching import ACCUMULATION, GLOBAL, MICRO
from launcher.config.machine import Machine
from launcher.config.provenance import USER_LAYERS, Batching, Origin, Setting
from launcher.config.schema import setting_infos


@dataclass(frozen=True)
class RunWorld:
    """Where the run will be."""

    size: int
    """Processes in all."""
    nproc: int
    """Processes on this machine."""
    device: str
    """cuda, xpu, mps or cpu."""


@dataclass
class Adaptation:
    """What the rules below work on."""

    values: dict[str, Setting]
    machine: Machine
    world: RunWorld
    notes: list[str]
    diagnostics: list[Diagnostic]

    def get(self, key: str) -> Any:
        """The value as it stands."""
        return self.values[key].value

    def typed(self, key: str) -> bool:
        """Whether a person wrote it."""
        return self.values[key].origin.layer in USER_LAYERS

    def replace(self, key: str, new: Any, reason: str) -> None:
        """Lay `new` over what the program asked for, and say why."""
        old = self.values[key]
        self.values[key] = provenance.overridden(old, new, Origin("machine", reason))
        self.notes.append(
            f"{key}: {plain(new)} in place of {plain(old.value)} of {old.origin.place}: {reason}"
        )

    def refuse(self, key: str, why: str, did_you_mean: Any, *, allowed: str | None = None) -> None:
        """Fault a person's word that this machine cannot follow."""
        self.diagnostics.append(impossible(self.values, key, why, did_you_mean, allowed))


def impossible(
    values: dict[str, Setting], key: str, why: str, did_you_mean: Any, allowed: str | None
) -> Diagnostic:
    """The fault of a legal value that cannot be had here."""
    value = values[key]
    beneath = Setting(*value.replaced[0]) if value.replaced else value
    family = values["model.family"].value
    return Diagnostic(
        f"{errors.display_name(key)} {shown(value.value)} {why}",
        key=key,
        value=value.value,
        where=errors.where(key, value.origin),
        overrides=errors.replaced(beneath),
        allowed=allowed or errors.allowed(setting_infos(family)[key]),
        did_you_mean=plain(did_you_mean),
        fix=errors.fix_line(key, value.origin, did_you_mean),
    )


def decide_world(
    values: dict[str, Setting],
    machine: Machine,
    world_size: int | None,
    diagnostics: list[Diagnostic],
) -> RunWorld:
    """Device, processes and engine; fills in those that nobody named."""
    device = values["device"].value
    device = machine.device if device == "auto" else device
    engine = ENGINES.get(values["engine.name"].value)
    nproc = values["engine.nproc"].value
    if nproc is None:
        gpus = machine.gpus if device in ("cuda", "xpu") else 0
        nproc, reason = max(1, gpus), f"one a GPU: {gpus}" if gpus else "no GPU: one process"
        if engine is not None and engine.processes is not None:
            nproc, reason = engine.processes, f"engine {engine.name}"
        if world_size is None:
            _fill(values, "engine.nproc", nproc, reason)
    elif world_size is None:
        _check_nproc(values, machine, device, diagnostics)
    size = world_size or nproc
    if engine is None:
        name = "local" if size == 1 else "ddp"
        _fill(values, "engine.name", name, "1 process" if size == 1 else f"{size} processes")
    return RunWorld(size, nproc, device)


def adapt_settings(bench: Adaptation) -> None:
    """Apply every rule."""
    for rule in RULES:
        rule(bench)


def write_batch_numbers(values: dict[str, Setting], solved: Batching) -> list[str]:
    """Put the solved numbers in the place of those asked for; what changed, a line each."""
    notes = []
    asked = values[MICRO].value
    processes = f"{solved.world_size} process" + ("es" if solved.world_size > 1 else "")
    reason = f"{solved.global_batch} = {solved.micro_batch} × {solved.accumulation} × {processes}"
    for key, number in (
        (GLOBAL, solved.global_batch),
        (MICRO, solved.micro_batch),
        (ACCUMULATION, solved.accumulation),
    ):
        if values[key].value != number:
            values[key] = provenance.overridden(values[key], number, Origin("solved", reason))
    if asked not in (None, solved.micro_batch):
        notes.append(f"{MICRO}: {solved.micro_batch} in place of {asked}: {reason}")
    return notes


def _fill(values: dict[str, Setting], key: str, new: Any, reason: str) -> None:
    values[key] = provenance.overridden(values[key], new, Origin("machine", reason))


def _check_nproc(
    values: dict[str, Setting], machine: Machine, device: str, diagnostics: list[Diagnostic]
) -> None:
    nproc = values["engine.nproc"].value
    most, what = machine.cores, "cores"
    if device == "mps":
        most, what = 1, "GPU"
    elif device in ("cuda", "xpu") and machine.gpus:
        most, what = machine.gpus, "GPUs"
    if nproc > most:
        why = f"is more than the {most} {what} of this machine"
        diagnostics.append(impossible(values, "engine.nproc", why, most, f"1 to {most}"))


def _precision(bench: Adaptation) -> None:
    precision, device = bench.get("precision"), bench.world.device
    cpu = "bf16" if bench.machine.cpu_bf16 else "fp32"
    if device == "cpu" and precision in ("fp16", "tf32"):
        near = cpu if precision == "fp16" else "fp32"
        if bench.typed("precision"):
            allowed = "fp32, bf16, bf16-params on a CPU"
            bench.refuse(
                "precision", "needs a GPU, and this run is on the CPU", near, allowed=allowed
            )
        else:
            native = ", and this CPU computes in bf16" if near == "bf16" else ""
            bench.replace("precision", near, f"no GPU{native}")
    elif device == "cpu" and precision == "bf16" and cpu == "fp32":
        if not bench.typed("precision"):
            bench.replace("precision", "fp32", "no GPU, and this CPU has no bf16")
    elif device == "mps" and precision in ("fp16", "tf32") and not bench.typed("precision"):
        bench.replace("precision", "fp32", "not supported on mps")


def _workers(bench: Adaptation) -> None:
    most = max(1, bench.machine.cores // bench.world.nproc)
    if bench.get("loader.workers") > most and not bench.typed("loader.workers"):
        cores = f"{bench.machine.cores} cores for {bench.world.nproc}"
        bench.replace(
            "loader.workers", most, f"{cores} process" + ("es" if bench.world.nproc > 1 else "")
        )


def _pin_memory(bench: Adaptation) -> None:
    key = "loader.pin_memory"
    if bench.get(key) and bench.world.device != "cuda" and not bench.typed(key):
        bench.replace(key, False, f"nothing to pin for on {bench.world.device}")


def _attention(bench: Adaptation) -> None:
    key = "memory.attention"
    precision = bench.get("precision")
    if bench.get(key) != "flash":
        return
    if bench.world.device != "cuda":
        if bench.typed(key):
            bench.refuse(key, f"needs a GPU, and this run is on {bench.world.device}", "auto")
        else:
            bench.replace(key, "auto", "no GPU")
    elif precision in ("fp32", "tf32") and not bench.typed(key):
        bench.replace(key, "auto", f"flash attention takes 16 bits, and precision is {precision}")


def _cache(bench: Adaptation) -> None:
    key = "memory.empty_cache_every"
    if bench.get(key) is None or bench.world.device != "cpu":
        return
    if bench.typed(key):
        bench.refuse(key, "needs a GPU, and this run is on the CPU", None)
    else:
        bench.replace(key, None, "a CPU has no such cache")


def _optimizer(bench: Adaptation) -> None:
    key, engine = "optim.name", ENGINES.get(bench.get("engine.name"))
    if engine is None or not engine.shards_parameters or bench.get(key) != "adafactor":
        return
    reason = f"engine {engine.name} cuts weights, and adafactor needs whole rows and columns"
    if not bench.typed(key):
        bench.replace(key, "adamw", reason)
        return
    able = ", ".join(entry.name for entry in ENGINES.values() if not entry.shards_parameters)
    allowed = f"adamw, sgd under engine {engine.name}; adafactor under {able}"
    bench.refuse(key, f"cannot be had: {reason}", "adamw", allowed=allowed)


def _compile(bench: Adaptation) -> None:
    if bench.get("compile") == "on" and bench.world.device == "cpu" and not bench.machine.compiler:
        if bench.typed("compile"):
            bench.refuse("compile", "needs a C++ compiler, and there is none", "off")
        else:
            bench.replace("compile", "off", "no C++ compiler")
    elif bench.get("compile") == "auto":
        pays = bench.world.device == "cuda" and bench.machine.compiler
        reason = "a GPU and a compiler" if pays else f"it does not pay on {bench.world.device}"
        _fill(bench.values, "compile", "on" if pays else "off", reason)


def _epochs(bench: Adaptation) -> None:
    """A person's epochs end a run that the program had cut short by steps."""
    if (
        bench.typed("train.epochs")
        and bench.get("train.max_steps") is not None
        and not bench.typed("train.max_steps")
    ):
        place = bench.values["train.epochs"].origin.place
        bench.replace("train.max_steps", None, f"{place} says how long")


def _debug(bench: Adaptation) -> None:
    if not bench.get("train.debug"):
        return
    place = bench.values["train.debug"].origin.place
    for key, value in (("loader.workers", 0), ("train.deterministic", True)):
        if bench.get(key) != value and not bench.typed(key):
            bench.replace(key, value, place)


RULES: tuple[Callable[[Adaptation], None], ...] = (
    _precision,
    _debug,
    _workers,
    _pin_memory,
    _attention,
    _optimizer,
    _cache,
    _compile,
    _epochs,
)
