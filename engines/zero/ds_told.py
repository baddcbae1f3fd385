"""Our settings in DeepSpeed's words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engines.zero.ds_config import Setting

OPTIMIZERS = {"adamw": ("AdamW", "Adam"), "sgd": ("SGD",)}
"""Our optimizers by DeepSpeed's names; its Adam decays weights as AdamW does."""

SCHEDULES = {
    "constant": ("WarmupLR",),
    "linear": ("WarmupDecayLR",),
    "cosine": ("WarmupCosineLR",),
    "cosine-restarts": (),
    "one-cycle": ("OneCycle",),
}
"""Our schedules by DeepSpeed's names."""

ENGINES = {
    (1, False): "zero1",
    (2, False): "zero2",
    (3, False): "zero3",
    (2, True): "zero2-offload",
    (3, True): "zero3-offload",
}
"""Engines by stage and whether the optimizer is kept in host memory."""


class Batching(Protocol):
    """The solved arithmetic of a step."""

    @property
    def global_batch(self) -> int: ...
    @property
    def micro_batch(self) -> int: ...
    @property
    def accumulation(self) -> int: ...


def told(
    engine: str, shipped: Mapping[str, Any], batching: Batching, settings: Any
) -> dict[str, Setting]:
    """What the settings say on each key that a DeepSpeed JSON may hold, too.

    `shipped` is the JSON of `engine`, which fixes stage and offload; of `settings` the sections
    `optim` and `schedule` and the value `precision` are read.
    """
    return {
        **_batch(batching),
        **_optimizer(settings.optim),
        "scheduler.type": _named("schedule.name", settings.schedule.name, SCHEDULES),
        **_precision(settings.precision),
        **_layout(engine, shipped["zero_optimization"]),
    }


def _batch(batching: Batching) -> dict[str, Setting]:
    return {
        "train_batch_size": _number("train.global_batch", batching.global_batch),
        "train_micro_batch_size_per_gpu": _number("train.micro_batch", batching.micro_batch),
        # train.accumulation is meant for one process, DeepSpeed's for each of many: no mend.
        "gradient_accumulation_steps": Setting(
            "train.accumulation", batching.accumulation, (batching.accumulation,), _nothing
        ),
    }


def _optimizer(optim: Any) -> dict[str, Setting]:
    params = {
        "lr": _number("optim.lr", optim.lr),
        "weight_decay": _number("optim.weight_decay", optim.weight_decay),
    }
    if optim.name == "adamw":
        params["betas"] = _number("optim.betas", list(optim.betas))
        params["eps"] = _number("optim.eps", optim.eps)
        params["adam_w_mode"] = Setting("optim.name", optim.name, (True,), _nothing)
        params["torch_adam"] = Setting("optim.name", optim.name, (True, False), _nothing)
    else:
        params["momentum"] = _number("optim.momentum", optim.momentum)
    clip = optim.clip_norm
    return {
        "gradient_clipping": Setting("optim.clip_norm", clip, (clip or 0.0,), _clip),
        "optimizer.type": _named("optim.name", optim.name, OPTIMIZERS),
        **{f"optimizer.params.{name}": setting for name, setting in params.items()},
    }


def _precision(precision: str) -> dict[str, Setting]:
    # DeepSpeed's bf16 block is what we call bf16-params: weights in bf16 under an fp32 master. Our
    # own bf16 and fp16 are autocast over fp32 weights, for which DeepSpeed has to run in fp32.
    params = precision == "bf16-params"
    blocks = {"bf16": params, "bfloat16": params, "fp16": False, "torch_autocast": False}

    def follow(block: str) -> Callable[[Any], str | None]:
        if block.startswith("bf"):
            return lambda on: f"--precision {'bf16-params' if on is True else 'bf16'}"
        return _nothing

    return {
        f"{block}.enabled": Setting("precision", precision, (on,), follow(block))
        for block, on in blocks.items()
    }


def _layout(engine: str, zero: Mapping[str, Any]) -> dict[str, Setting]:
    stage = zero["stage"]
    offload = zero.get("offload_optimizer", {}).get("device", "none")
    weights = zero.get("offload_param", {}).get("device", "none")

    def other(stage: Any, offload: bool) -> str | None:
        found = ENGINES.get((stage, offload)) if isinstance(stage, int) else None
        return f"--engine {found}" if found and found != engine else None

    return {
        "zero_optimization.stage": Setting(
            "engine.name", engine, (stage,), lambda to: other(to, offload == "cpu")
        ),
        "zero_optimization.offload_optimizer.device": Setting(
            "engine.name", engine, (offload,), lambda to: other(stage, to == "cpu")
        ),
        # An engine that keeps its weights in host memory may be told to leave them on the device.
        "zero_optimization.offload_param.device": Setting(
            "engine.name",
            engine,
            (weights,) if weights == "none" else (weights, "none"),
            lambda to: other(3, True) if to == "cpu" else None,
        ),
    }


def _number(key: str, value: Any) -> Setting:
    return Setting(key, value, (value,), lambda to: None if _odd(to) else _set(key, to))


def _clip(value: Any) -> str | None:
    return None if _odd(value) else _set("optim.clip_norm", value or None)


def _odd(value: Any) -> bool:
    return isinstance(value, (bool, str, Mapping))


def _set(key: str, value: Any) -> str:
    return "--set " + shlex.quote(f"{key}={json.dumps(value)}")


def _named(key: str, value: str, names: Mapping[str, tuple[str, ...]]) -> Setting:
    ours = {theirs.casefold(): name for name, all_ in names.items() for theirs in all_}

    def follow(to: Any) -> str | None:
        found = ours.get(str(to).casefold())
        return f"--set {key}={found}" if found else None

    return Setting(key, value, names[value], follow)


def _nothing(_: Any) -> None:
    return None
