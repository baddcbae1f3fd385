"""The options of an engine, from the settings of a run, and DeepSpeed's config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gearshift.engines.base import Options
from gearshift.engines.catalog import ENGINES
from gearshift.engines.settings import EngineSettings
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, plain, shown
from gearshift.launcher.config.provenance import Resolved
from gearshift.launcher.config.schema import Settings
from gearshift.launcher.config.settings_file import read_lines
from gearshift.training.settings import nested

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
    lines = {}
    for line in read_lines(Path(file).expanduser(), "engine.ds_config", file):
        lines[line.key] = line
    values = {key: line.value for key, line in lines.items()}
    decided = decided_keys(settings.engine.name, layout, resolved.batching, settings)
    try:
        return merge(layout, nested(values), decided)
    except ConfigConflict as error:
        diagnostics = []
        for conflict in error.conflicts:
            diagnostic = Diagnostic(
                f"{conflict.key} {shown(conflict.value)} {conflict.problem}",
                key=conflict.key,
                value=conflict.value,
                where=lines[conflict.key].where if conflict.key in lines else file,
                allowed=", ".join(map(plain, conflict.allowed)) or None,
                did_you_mean=conflict.did_you_mean,
                fix=conflict.did_you_mean or "leave it out",
            )
            diagnostics.append(diagnostic)
        raise SettingsError(diagnostics) from None
