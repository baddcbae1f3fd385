"""Adapts defaults to the machine, and settings to an engine; what cannot work is an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gearshift.engines.base import Options
from gearshift.engines.catalog import ENGINES, Entry, by_processes
from gearshift.engines.settings import EngineSettings
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, counted, plain, shown
from gearshift.launcher.config.batching import ACCUMULATION, GLOBAL, MICRO, SHARES, largest_divisor
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import (
    MACHINE_LAYER,
    MODE_LAYER,
    RESUMED_LAYER,
    Chosen,
    KeySets,
    Origin,
    Resolved,
    Setting,
    as_list,
    hub_names,
)
from gearshift.launcher.config.schema import (
    DATA_PATH,
    PRETRAINED,
    Settings,
    config_of,
    setting_infos,
)
from gearshift.launcher.config.selection import errors
from gearshift.launcher.config.settings_file import read_lines, read_table
from gearshift.models.catalog import folder_of
from gearshift.training.settings import nested

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
    is_launched: bool
    """Whether torchrun or srun started the processes."""
    nproc: int = 1
    """Processes on this machine."""
    size: int = 1
    """All processes."""
    notes: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """The current value."""
        return self.values[key].value

    def facts(self) -> dict[str, Any]:
        """What rules name, in their conditions and in braces in their reasons: also settings."""
        engine = ENGINES[self.get("engine.name")]
        offload = self.get("engine.offload")
        lacks = None
        if self.device in ("cuda", "cpu"):
            lacks = self.machine.compiler_lacks(self.device)
        share = max(1, self.machine.cores // self.nproc)
        shares = self.values[SHARES]
        is_list = isinstance(shares.value, list)
        # Ranks of other nodes decide the same.
        is_alone = self.device == "cuda" and not self.is_launched and self.nproc > 1
        workers = self.get("loader.workers")
        threads = self.get("engine.threads") or 0
        # A small machine may try what a larger one runs.
        limit = _PER_CORE * self.machine.cores // self.nproc
        most_workers = max(16, limit)
        most_threads = max(64, limit)
        return {
            **{key: setting.value for key, setting in self.values.items()},
            "device": self.device,
            "cpu_bf16": self.machine.cpu_bf16,
            "gpu_bf16": self.machine.gpu_bf16,
            "cores": self.machine.cores,
            "processes": counted(self.nproc, "process"),
            "share": share,
            "most_workers": most_workers,
            "most_threads": most_threads,
            "more_workers_than_cores": workers > share,
            "too_many_workers": workers > most_workers,
            "too_many_threads": threads > most_threads,
            "ranks": counted(self.size, "process"),
            "unlike_gpus": is_alone and self.machine.are_unlike and SHARES not in self.keys.user,
            "had_other_ranks": is_list
            and len(shares.value) != self.size
            and shares.origin.layer == RESUMED_LAYER,
            "lacks": lacks,
            "can_compile": not lacks,
            "engine": engine.name,
            "shards": engine.shards_parameters,
            "is_deepspeed": engine.ds_config is not None,
            "optimizer_on": engine.placement.optimizer,
            "offloads": " or ".join(engine.offload) or "nothing",
            "can_offload": offload in (None, *engine.offload),
            "offload": next(iter(engine.offload), None),
            "able": f"{offload} under {_under(lambda entry: offload in entry.offload)}",
            "unsharded": _under(lambda entry: not entry.shards_parameters),
            "without_deepspeed": _under(lambda entry: entry.ds_config is None),
            "is_adamw": self.get("optim.name") == "adamw",
            "values": self.values,
            "sets_epochs": self._is_users("train.epochs"),
            "sets_max_steps": self._is_users("train.max_steps"),
            "sets_time": self._is_users("train.time") and not self.get("continual.enabled"),
        }

    def _is_users(self, key: str) -> bool:
        return key in self.keys.user and self.get(key) is not None

    def fill(self, key: str, new: Any, reason: str) -> None:
        """Override a value."""
        self.values[key] = self.values[key].overridden(new, Origin(MACHINE_LAYER, reason))

    def replace(self, key: str, new: Any, reason: str) -> None:
        """Override a default, and note why if the mode that the user named set it."""
        old = self.values[key]
        if old.origin.layer == MODE_LAYER:
            before = f"{plain(old.value)} of {old.origin.where}"
            self.notes.append(f"{key}: {plain(new)} instead of {before}: {reason}")
        self.fill(key, new, reason)

    def reject(self, key: str, new: Any, reason: str, allowed: str | None) -> None:
        """Report a user's setting that is impossible here; replace a default."""
        if key in self.keys.user:
            allowed = allowed or errors().allowed(setting_infos(self.get("model.family"))[key])
            self.report(key, new, f"is impossible here: {reason}", allowed)
        else:
            self.replace(key, new, reason)

    def report(
        self, key: str, new: Any, problem: str, allowed: str, severity: Any = "error"
    ) -> None:
        """Report a value that has a `problem`, unlike `new`."""
        diagnostic = errors().about_value(
            self.values,
            key,
            problem,
            new=plain(new),
            did_you_mean=plain(new),
            allowed=allowed,
            severity=severity,
        )
        self.diagnostics.append(diagnostic)


class Row(NamedTuple):
    """A rule of the file, which says what its fields are; the documentation has a table of them."""

    key: str
    when: Mapping[str, Any]
    new: Any
    fact: str | None
    reason: str
    kind: Literal["fill", "prefer", "reject"]
    allowed: str | None
    note: str | None


def _under(is_able: Callable[[Entry], bool]) -> str:
    """The names of the engines that are able to do something."""
    return ", ".join(entry.name for entry in ENGINES.values() if is_able(entry))


ROWS = [Row(*rule) for rule in read_table("adaptations.yaml", Row._fields)]


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
    run = Adaptation(values, keys, machine, device, is_launched=world_size is not None)
    if device == "auto":
        run.device = machine.device
        if machine.unused and run.device in ("cuda", "cpu"):
            run.notes.append(f"device: {run.device}: {machine.unused}")
    # Commits are named, so that a resumed run has the same.
    for key in (PRETRAINED, DATA_PATH):
        if hub_names(values, key):
            from gearshift.launcher.config import hub_data  # for the runs that name one

            values[key], notes, diagnostics = hub_data.pin_setting(key, values)
            run.notes += notes
            run.diagnostics += diagnostics
    if run.get("download.fetch"):
        from gearshift.launcher.config import feature_checks  # for the runs that download

        run.notes += feature_checks.point_data_path(values, keys)

    _set_processes(run, world_size, chosen)
    _keep_micro_batch(run)
    _apply(run)
    _shorten_samples(run)
    if chosen is not None:
        run.notes.append(chosen.line)
    return run


def _apply(run: Adaptation) -> None:
    """Adapt the settings by the rules that hold."""
    for row in ROWS:
        facts = run.facts()
        new = facts[row.fact] if row.fact else row.new
        if run.get(row.key) == new or not holds(row.when, facts):
            continue
        reason = row.reason.format(**facts)
        if row.note:
            run.notes.append(f"{row.key}: {row.note}: {reason}")
        if row.kind == "fill":
            run.fill(row.key, new, reason)
        elif row.kind == "reject":
            run.reject(row.key, new, reason, row.allowed and row.allowed.format(new=new, **facts))
        elif row.key not in run.keys.user:
            run.replace(row.key, new, reason)


def holds(conditions: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether all `conditions` of a row are true."""
    return all(facts.get(name) in as_list(options) for name, options in conditions.items())


def _set_processes(run: Adaptation, world_size: int | None, chosen: Chosen | None) -> None:
    """Set processes and engine, as far as they are not set."""
    engine = ENGINES.get(chosen.engine if chosen else run.get("engine.name"))
    nproc = run.get("engine.nproc")
    gpus = 0 if run.device == "cpu" else run.machine.gpus
    if nproc is None:
        nproc = max(1, gpus)
        reason = f"one per GPU: {gpus}" if gpus else "no GPU: one process"
        if engine is not None and engine.processes is not None:
            nproc = engine.processes
            reason = f"engine {engine.name}"
        if world_size is None:
            run.fill("engine.nproc", nproc, reason)
    elif world_size is None:
        _check_processes(run, nproc, gpus)
    run.nproc = nproc
    run.size = world_size or nproc
    if chosen is not None:
        run.fill("engine.name", chosen.engine, chosen.where)
    elif engine is None:
        run.fill("engine.name", by_processes(run.size), counted(run.size, "process"))


def _check_processes(run: Adaptation, nproc: int, gpus: int) -> None:
    """Report more processes than GPUs or cores; that they share the cores is a warning."""
    limit = gpus or run.machine.cores
    if nproc <= limit:
        return
    problem = f"is more than the {counted(limit, 'GPU' if gpus else 'core')} of this machine"
    is_rehearsal = not gpus and nproc <= limit * _REHEARSED
    severity = "warning" if is_rehearsal else "error"
    run.report("engine.nproc", limit, problem, f"1 to {limit}", severity)


def _keep_micro_batch(run: Adaptation) -> None:
    """On a CPU, a mode with larger steps keeps the default's micro-batch, and its own global batch.

    A larger micro-batch occupies an idle GPU; to a CPU it only costs memory.
    """
    pair = {MICRO, ACCUMULATION}
    if run.device != "cpu" or pair & run.keys.user or not pair & run.keys.mode:
        return
    defaults = run.keys.defaults
    default = defaults[MICRO] or 1
    micro = run.get(MICRO) or 1
    whole = run.get(GLOBAL) or micro * (run.get(ACCUMULATION) or 1)
    if whole <= default * (defaults[ACCUMULATION] or 1):
        return
    smaller = largest_divisor(whole, min(micro, default))
    reason = "no GPU: larger micro-batches take memory, and a CPU gains little from them"
    run.replace(MICRO, smaller, reason)
    run.replace(ACCUMULATION, whole // smaller, f"{MICRO} is {smaller}: the same samples")
    if run.values[_CHECKPOINTING].origin.layer == MODE_LAYER:  # the default needs none for it
        reason = f"{MICRO} is not larger than the default's"
        run.replace(_CHECKPOINTING, defaults[_CHECKPOINTING], reason)


def _shorten_samples(run: Adaptation) -> None:
    """Cut samples to the context of a pretrained model; also those of the user."""
    name = run.values[PRETRAINED].value if PRETRAINED in run.values else None
    context_of = getattr(config_of(run.get("model.family")), "context_of", None)
    limit = context_of(folder_of(name)) if context_of and name else None
    key = "data.seq_len"
    if limit is None or (run.get(key) or 0) <= limit:
        return
    if key in run.keys.user:
        problem = f"is longer than the context of {PRETRAINED}: samples have {limit} tokens instead"
        run.report(key, limit, problem, f"8 to {limit}, the context of the model", "warning")
    else:
        run.notes.append(f"{key}: {limit} instead of {run.get(key)}, the context of {name}")
    run.fill(key, limit, f"the context of {name}")


_EVERY = {"none": "0", "full": "1", "selective": "1"}
"""One of how many blocks recomputes its activations."""


def engine_options(settings: Settings, resolved: Resolved, channels_last: bool) -> Options:
    """The options of the engine of `resolved`. `settings` notes which settings are read.

    `channels_last`: the memory format of the task. Raises SettingsError.
    """
    assert settings.precision != "auto", "resolved on this machine before"
    checkpointing = settings.memory.activation_checkpointing
    every = int(_EVERY.get(checkpointing, checkpointing.removeprefix("every ")))
    return Options(
        precision=settings.precision,
        compile=settings.compile != "off",
        graphs=settings.compile == "graphs",
        eager_on_failure="compile" in resolved.keys.auto,
        activation_checkpointing=every,
        keep_products=checkpointing == "selective",
        activation_offload=settings.memory.activation_offload,
        channels_last=channels_last,
        hybrid_shard=settings.engine.hybrid_shard,
        reduce_each_micro_batch=settings.memory.reduce_each_micro_batch,
        ds_config=deepspeed_layout(resolved, settings.engine),
        micro_batch=resolved.batching.micro_batch,
        accumulation=resolved.batching.accumulation,
        offload_threads=settings.engine.threads,
    )


def deepspeed_layout(resolved: Resolved, section: EngineSettings) -> dict[str, Any]:
    """The DeepSpeed config of partitioning and offload; empty for other engines.

    `section` has the user's file, engine.ds_config, and engine.offload. Reads the disk. Raises
    SettingsError for each key of that file that contradicts the settings.
    """
    settings = resolved.settings
    name = ENGINES[settings.engine.name].ds_config
    if name is None:
        return {}
    from gearshift.engines.zero.config import ConfigConflict, decided_keys, merge
    from gearshift.engines.zero.config_file import shipped

    layout = shipped(name)
    if section.offload == "states":
        layout["zero_optimization"].pop("offload_param", None)
    file = section.ds_config
    if file is None:
        return layout
    lines = read_lines(Path(file).expanduser(), "engine.ds_config", file)
    values = {line.key: line.value for line in lines}
    places = {line.key: line.where for line in lines}
    decided = decided_keys(settings.engine.name, layout, resolved.batching, settings)
    try:
        return merge(layout, nested(values), decided)
    except ConfigConflict as error:
        diagnostics = [
            Diagnostic(
                f"{conflict.key} {shown(conflict.value)} {conflict.problem}",
                key=conflict.key,
                value=conflict.value,
                where=places.get(conflict.key, file),
                allowed=", ".join(map(plain, conflict.allowed)) or None,
                did_you_mean=conflict.did_you_mean,
                hint=conflict.did_you_mean or "leave it out",
            )
            for conflict in error.conflicts
        ]
        raise SettingsError(diagnostics) from None
