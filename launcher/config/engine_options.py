"""The options of an engine, from the settings of a run."""

from __future__ import annotations

from engines.base import Options
from launcher.config import deepspeed_config
from launcher.config.provenance import Resolved
from launcher.config.schema import Settings


def engine_options(settings: Settings, resolved: Resolved, channels_last: bool) -> Options:
    """The options of the engine of `resolved`. `settings` notes which settings are read.

    `channels_last`: the memory format of the task. Raises SettingsError.
    """
    assert settings.precision != "auto", "resolved on this machine before"
    return Options(
        precision=settings.precision,
        compile=settings.compile == "on",
        activation_checkpointing=_checkpoint_every(settings.memory.activation_checkpointing),
        keep_products=settings.memory.activation_checkpointing == "selective",
        channels_last=channels_last,
        hybrid_shard=settings.engine.hybrid_shard,
        reduce_each_micro_batch=settings.memory.reduce_each_micro_batch,
        ds_config=deepspeed_config.layout(resolved, settings.engine.ds_config),
        micro_batch=resolved.batching.micro_batch,
        accumulation=resolved.batching.accumulation,
        offload_threads=settings.engine.threads,
    )


def _checkpoint_every(setting: str) -> int:
    """`none`, `full`, `selective` or `every N` as a number: 0, 1, 1 or N."""
    named = {"none": 0, "full": 1, "selective": 1}
    return named[setting] if setting in named else int(setting.removeprefix("every "))
