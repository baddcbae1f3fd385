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
from gearshift.launcher.config.batching import (
    ACCUMULATION,
    MICRO,
    SHARES,
    largest_divisor,
    samples_of,
)
from gearshift.launcher.config.machine import Machine
from gearshift.launcher.config.provenance import (
    BATCH_SETTINGS,
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
    nproc: int = 1
    """Processes on this machine."""
    size: int = 1
    """All processes."""
    notes: list[str] = field(default_factory=list)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """The current value."""
        return self.values[key].value

    def replace(self, key: str, new: Any, reason: str, *, is_noted: bool = False) -> None:
        """Override a value, and note why if the mode that the user named set it."""
        old = self.values[key]
        text = f"{key}: {plain(new)}"
        if old.origin.layer == MODE_LAYER:
            text += f" instead of {plain(old.value)} of {old.origin.where}"
            is_noted = True
        if is_noted:
            self.notes.append(f"{text}: {reason}")
        self.values[key] = old.overridden(new, Origin(MACHINE_LAYER, reason))


class Row(NamedTuple):
    """A rule of the file, which says what its fields are; the documentation has a table of them."""

    key: str
    when: Mapping[str, Any]
    new: Any
    fact: str | None
    above: str | None
    reason: str
    kind: Literal["fill", "prefer", "reject"]
    allowed: str | None
    is_noted: bool | None


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
    run = Adaptation(values, keys, machine, device)
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
    _apply(run, is_launched=world_size is not None)
    if chosen is not None:
        run.notes.append(chosen.line)
    return run


def _set_processes(run: Adaptation, world_size: int | None, chosen: Chosen | None) -> None:
    """Set processes and engine, as far as they are not set."""
    engine = ENGINES.get(chosen.engine if chosen else run.get("engine.name"))
    nproc = run.get("engine.nproc")
    if nproc is None:
        gpus = 0 if run.device == "cpu" else run.machine.gpus
        nproc = max(1, gpus)
        reason = f"one per GPU: {gpus}" if gpus else "no GPU: one process"
        if engine is not None and engine.processes is not None:
            nproc = engine.processes
            reason = f"engine {engine.name}"
        if world_size is None:
            run.replace("engine.nproc", nproc, reason)
    run.nproc = nproc
    run.size = world_size or nproc
    if chosen is not None:
        run.replace("engine.name", chosen.engine, chosen.line)
    elif engine is None:
        run.replace("engine.name", by_processes(run.size), counted(run.size, "process"))


def _keep_micro_batch(run: Adaptation) -> None:
    """On a CPU, a mode with larger steps keeps the default's micro-batch, and its own global batch.

    A larger micro-batch occupies an idle GPU; to a CPU it only costs memory.
    """
    pair = {MICRO, ACCUMULATION}
    if run.device != "cpu" or pair & run.keys.user or not pair & run.keys.changed:
        return
    defaults = run.keys.defaults
    whole = samples_of({key: run.get(key) for key in BATCH_SETTINGS})
    if whole <= samples_of(defaults):
        return
    smaller = largest_divisor(whole, min(run.get(MICRO) or 1, defaults[MICRO] or 1))
    reason = "no GPU: larger micro-batches take memory, and a CPU gains little from them"
    run.replace(MICRO, smaller, reason)
    run.replace(ACCUMULATION, whole // smaller, f"{MICRO} is {smaller}: the same samples")
    if run.values[_CHECKPOINTING].origin.layer == MODE_LAYER:  # the default needs none for it
        reason = f"{MICRO} is not larger than the default's"
        run.replace(_CHECKPOINTING, defaults[_CHECKPOINTING], reason)


def _apply(run: Adaptation, *, is_launched: bool) -> None:
    """Adapt the settings by the rules that hold."""
    facts = _facts(run, is_launched)
    for row in ROWS:
        setting = run.values.get(row.key)
        new = facts[row.fact] if row.fact else row.new
        if setting is None or setting.value == new:
            continue
        limit = facts[row.above] if row.above else None
        if row.above and (limit is None or (setting.value or 0) <= limit):
            continue
        now = {key: setting.value for key, setting in run.values.items()}
        if not holds(row.when or {}, {**now, **facts}):
            continue
        reason = row.reason.format(values=run.values, new=new, **facts)
        is_users = row.key in run.keys.user
        if row.kind == "reject" and is_users:
            allowed = row.allowed and row.allowed.format(new=new, **facts)
            info = setting_infos(run.get("model.family"))[row.key]
            diagnostic = errors().about_value(
                run.values,
                row.key,
                f"is impossible here: {reason}",
                new=plain(new),
                did_you_mean=plain(new),
                allowed=allowed or errors().allowed(info),
            )
            run.diagnostics.append(diagnostic)
        elif row.kind == "fill" or not is_users:
            run.replace(row.key, new, reason, is_noted=bool(row.is_noted))


def _facts(run: Adaptation, is_launched: bool) -> dict[str, Any]:
    """What rules name beside settings: in their conditions, and in braces in their texts."""
    machine = run.machine
    engine = ENGINES[run.get("engine.name")]
    offload = run.get("engine.offload")
    gpus = 0 if run.device == "cpu" else machine.gpus
    shares = run.values[SHARES]
    had_other_ranks = isinstance(shares.value, list) and len(shares.value) != run.size
    # A small machine may try what a larger one runs.
    most = _PER_CORE * machine.cores // run.nproc
    lacks = machine.compiler_lacks(run.device)
    model = run.values[PRETRAINED].value if PRETRAINED in run.values else None
    context_of = getattr(config_of(run.get("model.family")), "context_of", None)
    facts = {
        "is_launched": is_launched,
        "device": run.device,
        "cpu_bf16": machine.cpu_bf16,
        "gpu_bf16": machine.gpu_bf16,
        "cores": counted(machine.cores, "core"),
        "devices": gpus or machine.cores,
        "counted_devices": counted(gpus or machine.cores, "GPU" if gpus else "core"),
        "most_processes": gpus or _REHEARSED * machine.cores,
        "processes": counted(run.nproc, "process"),
        "share": max(1, machine.cores // run.nproc),
        "most_workers": max(16, most),
        "most_threads": max(64, most),
        "ranks": counted(run.size, "process"),
        "unlike_gpus": run.device == "cuda" and machine.are_unlike and run.nproc > 1,
        "had_other_ranks": had_other_ranks and shares.origin.layer == RESUMED_LAYER,
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
        "model": model,
        "context": context_of(folder_of(model)) if context_of and model else None,
    }
    for name in ("epochs", "max_steps", "time"):
        key = f"train.{name}"
        facts[f"sets_{name}"] = key in run.keys.user and run.get(key) is not None
    return facts


def _under(is_able: Callable[[Entry], bool]) -> str:
    """The names of the engines that are able to do something."""
    return ", ".join(entry.name for entry in ENGINES.values() if is_able(entry))


def holds(conditions: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether all `conditions` of a row are true."""
    return all(facts.get(name) in as_list(options) for name, options in conditions.items())


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
    from gearshift.engines.zero.config import ConfigConflict, decided_keys, merge, shipped

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
