"""DeepSpeed config: the shipped one of each engine, and how that of a user is merged into it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

AUTO = "auto"
"""Hugging Face's value for: taken from the settings."""
ZERO = "zero_optimization"
FREE = {
    "comms_logger",
    "disable_allgather",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "log_level",
    "memory_breakdown",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    "zero_optimization.allgather_bucket_size",
    "zero_optimization.allgather_partitions",
    "zero_optimization.contiguous_gradients",
    "zero_optimization.enable_sanity_checks",
    "zero_optimization.ignore_unused_parameters",
    "zero_optimization.load_from_fp32_weights",
    "zero_optimization.log_trace_cache_warnings",
    "zero_optimization.memory_efficient_linear",
    "zero_optimization.offload_optimizer.pin_memory",
    "zero_optimization.offload_param.pin_memory",
    "zero_optimization.overlap_comm",
    "zero_optimization.override_module_apply",
    "zero_optimization.parameter_alignment",
    "zero_optimization.pipeline_loading_checkpoint",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.reduce_scatter",
    "zero_optimization.stage3_allgather_sequential",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save",
    "zero_optimization.stage3_gather_fp16_weights_on_model_save",
    "zero_optimization.stage3_max_live_parameters",
    "zero_optimization.stage3_max_reuse_distance",
    "zero_optimization.stage3_model_persistence_threshold",
    "zero_optimization.stage3_param_persistence_threshold",
    "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_use_all_reduce_for_fetch_params",
    "zero_optimization.sub_group_size",
    "zero_optimization.use_multi_rank_bucket_allreduce",
}
"""Keys that are passed to DeepSpeed as written; of a block, with all its keys."""
FIXED = {
    # Sums of rounded gradients, and weights or gradients in fewer bits, give other losses.
    "communication_data_type": "fp32",
    "data_types.grad_accum_dtype": "fp32",
    "zero_optimization.zero_quantized_gradients": False,
    "zero_optimization.zero_quantized_weights": False,
    # Stage 3 loses the factor, stages 2 and 3 refuse to prescale.
    "gradient_allreduce_op": "mean",
    "gradient_predivide_factor": 1.0,
    "prescale_gradients": False,
    # Decided by the loop and by its optimizer, which is torch's.
    "managed_gradient_accumulation": True,
    "zero_optimization.compute_grad_norm": True,
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
    "zero_optimization.elastic_checkpoint": False,
    # The backward pass finds released weights; the second copy of weights misses what is loaded.
    "zero_optimization.stage3_module_granularity_threshold": 0,
    "zero_optimization.zero_hpz_partition_size": 1,
}
"""The one value of a key under these engines."""
SETTING = {
    "amp": "precision",
    "bf16": "precision",
    "bfloat16": "precision",
    "fp16": "precision",
    "torch_autocast": "precision",
    "comet": "track",
    "csv_monitor": "track",
    "tensorboard": "track",
    "wandb": "track",
    "checkpoint": "save",
    "datastates_ckpt": "save",
    "nebula": "save",
    "activation_checkpointing": "memory.activation_checkpointing",
    "compile": "compile",
    "optimizer": "optim",
    "scheduler": "schedule",
    "zero_optimization.cpu_offload": "engine.name",
    "zero_optimization.cpu_offload_param": "engine.name",
}
"""What decides a key, or a block with all its keys."""
OPTIMIZERS = {"adamw": ("AdamW", "Adam"), "sgd": ("SGD",)}
"""DeepSpeed's names of our optimizers; its Adam decays weights as AdamW does."""
SCHEDULES = {
    "constant": ("WarmupLR",),
    "linear": ("WarmupDecayLR",),
    "cosine": ("WarmupCosineLR",),
    "one-cycle": ("OneCycle",),
}
"""DeepSpeed's names of our schedules."""


@dataclass(frozen=True)
class Conflict:
    """A key of a DeepSpeed config that conflicts with the settings."""

    key: str
    """Dotted, as in `zero_optimization.stage`."""
    value: Any
    problem: str
    """The problem with the value: `differs from optim.clip_norm 1`."""
    allowed: tuple[Any, ...] = ()
    did_you_mean: str | None = None


class ConfigConflict(ValueError):
    """A DeepSpeed config conflicts with the settings; `conflicts` has every case."""

    def __init__(self, conflicts: Sequence[Conflict]):
        self.conflicts = conflicts


Decided = dict[str, tuple[str, Any, Sequence[Any] | None]]
"""By DeepSpeed's dotted key: the setting that decides it, its value, and DeepSpeed's for it, of
which each is allowed; None: the same."""


def shipped(name: str) -> Any:
    """The config of an engine, by the file name in the catalog. Reads the disk."""
    return json.loads((files("gearshift.ds_configs") / "deepspeed" / name).read_text("utf-8"))


def decided_keys(engine: str, layout: Mapping[str, Any], batching: Any, settings: Any) -> Decided:
    """The keys of a DeepSpeed config that repeat a setting.

    `layout` is the config of `engine`, which fixes stage and offload; `batching` has the batch
    numbers; of `settings` the sections `optim` and `schedule` and the values `precision` and
    `engine.offload` are read.
    """
    optim = settings.optim
    zero = layout[ZERO]
    offload = settings.engine.offload
    schedule = settings.schedule.name
    precision = settings.precision
    in_bf16 = precision in ("bf16", "fp8")
    keys: Decided = {
        "train_batch_size": ("train.global_batch", batching.global_batch, None),
        "train_micro_batch_size_per_gpu": ("train.micro_batch", batching.micro_batch, None),
        "gradient_accumulation_steps": ("train.accumulation", batching.accumulation, None),
        "gradient_clipping": ("optim.clip_norm", optim.clip_norm, (optim.clip_norm or 0.0,)),
        "optimizer.type": ("optim.name", optim.name, OPTIMIZERS[optim.name]),
        "optimizer.params.lr": ("optim.lr", optim.lr, None),
        "optimizer.params.weight_decay": ("optim.weight_decay", optim.weight_decay, None),
        "scheduler.type": ("schedule.name", schedule, SCHEDULES.get(schedule, ())),
        "bf16.enabled": ("precision", precision, (in_bf16,)),
        "bfloat16.enabled": ("precision", precision, (in_bf16,)),
        "fp16.enabled": ("precision", precision, (precision == "fp16",)),
        "torch_autocast.enabled": ("precision", precision, (False,)),
        "zero_optimization.stage": ("engine.name", engine, (zero["stage"],)),
    }
    if optim.name == "adamw":
        keys["optimizer.params.betas"] = ("optim.betas", list(optim.betas), None)
        keys["optimizer.params.eps"] = ("optim.eps", optim.eps, None)
        keys["optimizer.params.adam_w_mode"] = ("optim.name", optim.name, (True,))
        keys["optimizer.params.torch_adam"] = ("optim.name", optim.name, (True, False))
    else:
        keys["optimizer.params.momentum"] = ("optim.momentum", optim.used_momentum, None)
    states = zero.get("offload_optimizer", {}).get("device", "none")
    weights = zero.get("offload_param", {}).get("device", "none")
    keys["zero_optimization.offload_optimizer.device"] = ("engine.name", engine, (states,))
    # Without engine.offload an engine with weights in host memory may leave them on the device.
    places = sorted({weights, "none"})
    keys["zero_optimization.offload_param.device"] = ("engine.name", engine, places)
    if offload:
        keys["zero_optimization.offload_param.device"] = ("engine.offload", offload, (weights,))
    return keys


def merge(layout: dict[str, Any], user: Mapping[str, Any], decided: Decided) -> dict[str, Any]:
    """`user` merged over `layout`, without the keys that settings decide; the engine adds those.

    Raises ConfigConflict with all conflicts, in the order of the file.
    """
    conflicts = []
    merged = deepcopy(layout)
    for key, value in _leaves(user):
        conflict = _conflict(key, value, decided)
        if conflict is not None:
            conflicts.append(conflict)
        elif (_is_free(key) or key.startswith(ZERO)) and not _is_auto(value):
            block = merged
            (*path, name) = key.split(".")
            for part in path:
                block = block.setdefault(part, {})
            block[name] = value
    if conflicts:
        raise ConfigConflict(conflicts)
    return merged


def _leaves(block: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; of a block that is not on only that."""
    for name, value in block.items():
        if not isinstance(value, Mapping):
            yield f"{prefix}{name}", value
            continue
        switch = value.get("enabled", True)
        if switch is True:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}.enabled", switch


def _conflict(key: str, value: Any, decided: Decided) -> Conflict | None:
    if key in decided:
        setting, setting_value, means = decided[key]
        if means is None:
            means = [setting_value]
        if _is_auto(value) or any(_equal(value, meant) for meant in means):
            return None
        value_text = "null" if setting_value is None else setting_value
        return Conflict(key, value, f"differs from {setting} {value_text}", (*means, AUTO))
    if key in FIXED:
        if _is_auto(value) or _equal(value, FIXED[key]):
            return None
        return Conflict(key, value, "is fixed under this engine", (FIXED[key],))
    known = sorted({*decided, *FIXED, *FREE})
    is_block = any(name.startswith(f"{key}.") for name in known)
    by = next((SETTING[block] for block in SETTING if f"{key}.".startswith(f"{block}.")), None)
    is_off = key.endswith(".enabled") and value is False
    if _is_free(key) or is_off or ((by or is_block) and _is_auto(value)):
        return None
    if is_block:
        return Conflict(key, value, "must be an object")
    if by:
        return Conflict(key, value, f"is decided by {by}")
    nearest = get_close_matches(key, known, 1)
    did_you_mean = nearest[0] if nearest else None
    return Conflict(key, value, "is not supported here", did_you_mean=did_you_mean)


def _is_free(key: str) -> bool:
    return key in FREE or key.partition(".")[0] in FREE


def _is_auto(value: Any) -> bool:
    return value in (None, AUTO)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, str) and isinstance(b, str):
        return a.casefold() == b.casefold()
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    # In Python True == 1; in JSON it is not.
    return isinstance(a, bool) == isinstance(b, bool) and a == b
