"""Adapts defaults to the machine; a user's setting that cannot work here is an error."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gearshift.engines.catalog import ENGINES, by_processes
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, counted, plain
from gearshift.launcher.config import errors
from gearshift.launcher.config.batching import ACCUMULATION, GLOBAL, MICRO, largest_divisor
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import (
    MACHINE_LAYER,
    MODE_LAYER,
    Chosen,
    KeySets,
    Origin,
    Setting,
)
from gearshift.launcher.config.schema import PRETRAINED, config_of, setting_infos
from gearshift.models.catalog import HUB, folder_of, is_custom

_CHECKPOINTING = "memory.activation_checkpointing"
_REHEARSED = 16
"""Processes per core with which a larger machine can be rehearsed, slowly."""
_PER_CORE = 4
"""Loader workers, or threads, of all processes for each core; more only wait."""


@dataclass
class Adaptation:
    """The settings, the machine and the results of the rules below."""

    values: dict[str, Setting]
    keys: KeySets
    machine: Machine
    device: str
    """cuda, xpu, mps or cpu."""
    nproc: int = 1
    """Processes on this machine."""
    size: int = 1
    """All processes."""
    notes: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """The current value."""
        return self.values[key].value

    def fill(self, key: str, new: Any, reason: str) -> None:
        """Override a value."""
        self.values[key] = self.values[key].overridden(new, Origin(MACHINE_LAYER, reason))

    def replace(self, key: str, new: Any, reason: str) -> None:
        """Override a default, and note why if the mode that the user named set it."""
        old = self.values[key]
        if old.origin.layer == MODE_LAYER:
            note = (
                f"{key}: {plain(new)} instead of {plain(old.value)} of {old.origin.where}: {reason}"
            )
            self.notes.append(note)
        self.fill(key, new, reason)

    def prefer(self, key: str, new: Any, reason: str) -> None:
        """Replace another default; what the user set stays."""
        if key not in self.keys.user and self.get(key) != new:
            self.replace(key, new, reason)

    def reject(self, key: str, new: Any, reason: str, allowed: str | None = None) -> None:
        """Report a user's setting that is impossible here; replace a default."""
        if key in self.keys.user:
            allowed = allowed or errors.allowed(setting_infos(self.get("model.family"))[key])
            self.report(key, new, f"is impossible here: {reason}", allowed)
        else:
            self.replace(key, new, reason)

    def report(
        self, key: str, new: Any, problem: str, allowed: str, severity: Any = "error"
    ) -> None:
        """Report a value that has a `problem`, unlike `new`."""
        parts = {
            "new": plain(new),
            "did_you_mean": plain(new),
            "allowed": allowed,
            "severity": severity,
        }
        self.diagnostics.append(errors.about_value(self.values, key, problem, **parts))


def adapt(
    values: dict[str, Setting],
    keys: KeySets,
    machine: Machine,
    world_size: int | None = None,
    chosen: Chosen | None = None,
) -> Adaptation:
    """Adapt `values` to the machine and to data that is downloaded.

    `world_size` and `chosen` as in resolve.resolve.
    """
    device = values["device"].value
    run = Adaptation(values, keys, machine, machine.device if device == "auto" else device)
    if machine.unused and device == "auto" and run.device in ("cuda", "cpu"):
        run.notes.append(f"device: {run.device}: {machine.unused}")
    named = None if is_custom(run.get("model.family")) else values.get(PRETRAINED)
    if named is not None and str(named.value).startswith(HUB):
        from gearshift.launcher.config import hub  # for the runs that name one

        try:
            pinned = hub.fetch(named.value)
            values[PRETRAINED] = replace(named, value=pinned)
            run.notes += [f"{PRETRAINED}: {pinned}, the commit of {named.value}"] * (
                pinned != named.value
            )
        except SettingsError as error:
            where = errors.where(PRETRAINED, named.origin)
            run.diagnostics += [
                replace(each, key=PRETRAINED, where=where) for each in error.diagnostics
            ]
    if run.get("download.fetch"):
        from gearshift.launcher.config import (
            feature_checks,
        )  # for the runs that download their data

        run.notes += feature_checks.point_data_path(values, keys)

    # Processes and engine, as far as they are not set.
    engine = ENGINES.get(chosen.engine if chosen else run.get("engine.name"))
    nproc = run.get("engine.nproc")
    gpus = machine.gpus if run.device in ("cuda", "xpu") else 0
    if nproc is None:
        nproc = max(1, gpus)
        reason = f"one per GPU: {gpus}" if gpus else "no GPU: one process"
        if engine is not None and engine.processes is not None:
            nproc = engine.processes
            reason = f"engine {engine.name}"
        if world_size is None:
            run.fill("engine.nproc", nproc, reason)
    elif world_size is None:
        limit, what = (gpus, "GPUs") if gpus else (machine.cores, "cores")
        limit, what = (1, "GPU") if run.device == "mps" else (limit, what)
        if nproc > limit:
            # A larger machine may be rehearsed: its processes share the cores.
            is_rehearsed = what == "cores" and nproc <= limit * _REHEARSED
            problem = f"is more than the {limit} {what} of this machine{', which they share' * is_rehearsed}"
            severity = "warning" if is_rehearsed else "error"
            run.report("engine.nproc", limit, problem, f"1 to {limit}", severity)
    run.nproc = nproc
    run.size = world_size or nproc
    if chosen is not None:
        run.fill("engine.name", chosen.engine, chosen.where)
    elif engine is None:
        run.fill("engine.name", by_processes(run.size), counted(run.size, "process"))

    _of_device(run)
    _of_engine(run)
    if chosen is not None:  # after the rules: it was planned with what they set
        for key, value in chosen.settings.items():
            if run.get(key) != value:
                run.fill(key, value, chosen.where)
        run.notes.append(chosen.line)
    return run


def _of_device(run: Adaptation) -> None:
    """What a device can do: precision, micro-batch, loader, memory."""
    device = run.device
    machine = run.machine
    cores = run.machine.cores
    nproc = run.nproc
    key = "precision"
    precision = run.get("precision")
    if precision == "auto":
        new = "fp32"
        reason = "no GPU with bf16"
        if device in ("cuda", "xpu") and machine.gpu_bf16:
            new = "bf16"
            reason = "a GPU with bf16"
        elif device == "cuda":
            new = "fp16"
            reason = "a GPU without bf16"
            run.notes.append(f"{key}: fp16 with loss scaling: {reason}")
        run.fill(key, new, reason)
    elif device == "cpu" and precision in ("fp16", "tf32", "fp8"):
        new = "fp32"
        reason = "no GPU"
        if machine.cpu_bf16 and precision != "tf32":
            new = "bf16"
            reason = "no GPU, and this CPU computes in bf16"
        run.reject(key, new, reason, "fp32, bf16 on a CPU")
    elif device == "cpu" and precision == "bf16" and not machine.cpu_bf16:
        run.prefer(key, "fp32", "no GPU, and this CPU has no bf16")
    elif device == "mps" and precision in ("fp16", "bf16", "tf32", "fp8"):
        run.prefer(key, "fp32", "not supported on mps")
    elif device == "cuda" and precision == "bf16" and not machine.gpu_bf16:
        run.prefer(key, "fp16", "a GPU without bf16")

    # On a CPU, a mode with larger steps keeps the micro-batch of the default, and the global batch of
    # the mode. A larger micro-batch occupies an idle GPU; to a CPU it only costs memory.
    pair = {MICRO, ACCUMULATION}
    defaults = run.keys.defaults
    micro = run.get(MICRO) or 1
    default = defaults[MICRO] or 1
    whole = run.get(GLOBAL) or micro * (run.get(ACCUMULATION) or 1)
    is_larger = bool(pair & run.keys.mode) and whole > default * (defaults[ACCUMULATION] or 1)
    if device == "cpu" and is_larger and not pair & run.keys.user:
        smaller = largest_divisor(whole, min(micro, default))
        reason = "no GPU: larger micro-batches take memory, and a CPU gains little from them"
        run.replace(MICRO, smaller, reason)
        run.replace(ACCUMULATION, whole // smaller, f"{MICRO} is {smaller}: the same samples")
        if run.values[_CHECKPOINTING].origin.layer == MODE_LAYER:  # the default needs none for it
            reason = f"{MICRO} is not larger than the default's"
            run.replace(_CHECKPOINTING, defaults[_CHECKPOINTING], reason)

    if run.get("train.debug"):
        where = run.values["train.debug"].origin.where
        run.prefer("loader.workers", 0, where)
        run.prefer("train.deterministic", True, where)
    if run.get("loader.workers") > (share := max(1, cores // nproc)):
        run.prefer("loader.workers", share, f"{cores} cores for {counted(nproc, 'process')}")
    # A small machine may still try what a larger one runs.
    for key, least in (("loader.workers", 16), ("engine.threads", 64)):
        most = max(least, _PER_CORE * cores // nproc)
        if (run.get(key) or 0) > most:
            run.reject(key, most, f"{cores} cores", f"at most {most} on this machine")
    if device != "cuda":
        run.prefer("loader.pin_memory", False, f"pinned memory has no use on {device}")

    key = "memory.attention"
    precision = run.get("precision")
    if run.get(key) == "flash" and device != "cuda":
        run.reject(key, "auto", "no GPU")
    elif run.get(key) == "flash" and precision in ("fp32", "tf32"):
        run.prefer(
            key, "auto", f"flash attention needs a 16-bit precision, and precision is {precision}"
        )
    if run.get("memory.activation_offload") and device != "cuda":
        run.reject("memory.activation_offload", False, "no NVIDIA or AMD GPU")
    if run.get("memory.empty_cache_every") is not None and device == "cpu":
        run.reject("memory.empty_cache_every", None, "a CPU has no allocator cache")


def _of_engine(run: Adaptation) -> None:
    """What an engine can do with the optimizer and a compiler; lengths that override one another."""
    engine = ENGINES[run.get("engine.name")]
    name = run.get("optim.name")
    able = {
        "adafactor": [e.name for e in ENGINES.values() if not e.shards_parameters],
        "muon": [e.name for e in ENGINES.values() if e.ds_config is None],
    }
    if engine.name not in able.get(name, ENGINES):
        whole = "rows and columns" if name == "adafactor" else "matrices"
        reason = f"engine {engine.name} shards weights, and {name} needs whole {whole}"
        run.reject("optim.name", "adamw", reason, f"{name} under {', '.join(able[name])}")
        name = run.get("optim.name")
    if run.get("optim.state") != "fp32" and name != "adamw":
        run.reject("optim.state", "fp32", f"{name} keeps its state in fp32")
    if engine.placement.optimizer == "host":
        run.prefer(
            "optim.state",
            "fp32",
            f"engine {engine.name} has it in host memory, where fp32 is faster",
        )
    if (offload := run.get("engine.offload")) not in (None, *engine.offload):
        reason = f"engine {engine.name} offloads {' or '.join(engine.offload) or 'nothing'}"
        allowed = (
            f"{offload} under {', '.join(e.name for e in ENGINES.values() if offload in e.offload)}"
        )
        run.reject("engine.offload", next(iter(engine.offload), None), reason, allowed)

    # The user's epochs override a shipped limit of steps, and a limit of steps shipped epochs.
    pair = ("train.epochs", "train.max_steps")
    for key, other in (pair, pair[::-1]):
        is_users = key in run.keys.user and other not in run.keys.user
        if is_users and None not in (run.get(key), run.get(other)):
            run.replace(other, None, f"{run.values[key].origin.where} sets the length")

    # CUDA graphs read and write at the addresses of their recording.
    key = "compile"
    lacks = run.machine.compiler_lacks(run.device)
    is_gpu = run.device == "cuda"
    compiled = run.get(key)
    if compiled == "auto":
        new, reason = (
            ("on", "a GPU and a compiler") if is_gpu else ("off", f"slower on {run.device}")
        )
        if is_gpu and lacks:
            new = "off"
            reason = f"it needs {lacks}"
            run.notes.append(f"{key}: off: {reason}")
        run.fill(key, new, reason)
    elif compiled != "off" and run.device in ("cuda", "cpu") and lacks:
        run.reject(key, "off", f"it needs {lacks}")
    elif compiled == "graphs" and not is_gpu:
        run.reject(key, "off", "no NVIDIA GPU")
    elif compiled == "graphs" and (
        engine.shards_parameters or run.get("memory.activation_offload")
    ):
        what = f"engine {engine.name}" if engine.shards_parameters else "memory.activation_offload"
        run.reject(key, "on", f"{what} moves tensors, and CUDA graphs have fixed addresses")

    # Samples are no longer than the context of a pretrained model; also those of the user.
    key = "data.seq_len"
    name = run.values[PRETRAINED].value if PRETRAINED in run.values else None
    context_of = getattr(config_of(run.get("model.family")), "context_of", None)
    limit = context_of(folder_of(name)) if context_of is not None and name is not None else None
    if limit is not None and (run.get(key) or 0) > limit:
        if key in run.keys.user:
            problem = (
                f"is longer than the context of {PRETRAINED}: samples have {limit} tokens instead"
            )
            run.report(key, limit, problem, f"8 to {limit}, the context of the model", "warning")
        else:
            run.notes.append(f"{key}: {limit} instead of {run.get(key)}, the context of {name}")
        run.fill(key, limit, f"the context of {name}")
