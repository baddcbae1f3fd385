"""Hand-written training: one process, DDP, fully_shard and deepspeed.initialize."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.workload import CLIP_NORM, Work
from gearshift.engines.world import open_world

_TIMEOUT_S = 600.0


def local(work: Work) -> None:
    """One process, with autocast in bf16."""
    model = work.model()
    _compile(work, model)
    _loop(work, model, work.optimizer(model), autocast=True)


def ddp(work: Work) -> None:
    """DistributedDataParallel, with autocast in bf16."""
    _join(work)
    plain = work.model()
    _compile(work, plain)
    model = nn.parallel.DistributedDataParallel(plain)
    _loop(work, model, work.optimizer(plain), autocast=True)
    dist.destroy_process_group()


def fsdp(work: Work) -> None:
    """fully_shard on every block and on the root; in bf16 with fp32 reduction."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    _join(work)
    model = work.model()
    low = torch.bfloat16 if work.precision == "bf16" else None
    policy = MixedPrecisionPolicy(low, reduce_dtype=torch.float32)
    for block in work.blocks(model):
        _compile(work, block)
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)
    _loop(work, model, work.optimizer(model))
    dist.destroy_process_group()


def zero(work: Work, stage: int, offload: bool = False, own_adam: bool = False) -> None:
    """deepspeed.initialize, given the same optimizer, or with `own_adam` DeepSpeed's."""
    deepspeed = import_deepspeed(work.device)
    _join(work)
    deepspeed.init_distributed(verbose=False, dist_init_required=False)
    model = work.model()
    settings: dict[str, Any] = {"stage": stage, "overlap_comm": work.device != "cpu"}
    if offload:
        settings["offload_optimizer"] = {"device": "cpu", "pin_memory": work.device != "cpu"}
    adam = {"lr": work.lr, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": work.weight_decay}
    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=work.groups(model) if own_adam else None,
        optimizer=None if own_adam else work.optimizer(model),
        config={
            "train_micro_batch_size_per_gpu": work.micro_batch,
            "gradient_clipping": CLIP_NORM,
            "bf16": {"enabled": work.precision == "bf16"},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": own_adam,
            "zero_optimization": settings,
            **({"optimizer": {"type": "AdamW", "params": adam}} if own_adam else {}),
        },
    )
    schedule = work.schedule(engine.basic_optimizer)
    for batch in work.batches():
        engine.backward(work.loss(engine, batch))
        engine.step()
        schedule.step()
    dist.destroy_process_group()


def import_deepspeed(device: str) -> ModuleType:
    """DeepSpeed; on a CPU without the operator for collectives that it compiles for inference.

    A process that is killed while it compiles leaves a lock on which all later ones wait.
    """
    import deepspeed

    if device == "cpu":
        # By name: the attribute of that name is torch itself.
        collectives: Any = import_module("deepspeed.comm.torch")
        collectives.build_shm_op = lambda: None
    return deepspeed


def _join(work: Work) -> None:
    """Open the process group as Gearshift does: backends, device of NCCL, allocator."""
    open_world(work.device, _TIMEOUT_S, always_group=True)


def _compile(work: Work, module: nn.Module) -> None:
    if work.compile == "on":
        module.compile(backend=work.backend)


def _loop(work: Work, model: nn.Module, optimizer: Any, autocast: bool = False) -> None:
    schedule = work.schedule(optimizer)
    for batch in work.batches():
        with torch.autocast(
            work.device, torch.bfloat16, enabled=autocast and work.precision == "bf16"
        ):
            loss = work.loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


RAW: dict[str, Callable[[Work], None]] = {
    "local": local,
    "ddp": ddp,
    "fsdp": fsdp,
    **{f"zero{stage}": partial(zero, stage=stage) for stage in (2, 3)},
    "zero2-offload": partial(zero, stage=2, offload=True),
    "zero2-offload own Adam": partial(zero, stage=2, offload=True, own_adam=True),
}
