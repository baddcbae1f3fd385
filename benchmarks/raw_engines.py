"""Hand-written training on several processes: DDP, fully_shard and deepspeed.initialize."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.workload import CLIP_NORM, Work


def ddp(work: Work) -> None:
    """DistributedDataParallel."""
    _join(work)
    plain = work.model()
    model = torch.nn.parallel.DistributedDataParallel(plain)
    _loop(work, model, work.optimizer(plain))


def fsdp(work: Work) -> None:
    """fully_shard on every block and on the root."""
    from torch.distributed.fsdp import fully_shard

    _join(work)
    model = work.model()
    for block in work.task.blocks(model):
        fully_shard(block)
    fully_shard(model)
    _loop(work, model, work.optimizer(model))


def zero2(work: Work) -> None:
    """deepspeed.initialize at stage 2, given the same optimizer."""
    import deepspeed

    deepspeed.init_distributed("gloo" if work.device == "cpu" else "nccl", verbose=False)
    model = work.model()
    optimizer = work.optimizer(model)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": work.micro_batch,
            "gradient_clipping": CLIP_NORM,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 2, "overlap_comm": work.device != "cpu"},
        },
    )
    schedule = work.schedule(optimizer)
    for batch in work.batches():
        engine.backward(work.loss(engine, batch))
        engine.step()
        schedule.step()
    dist.destroy_process_group()


def _join(work: Work) -> None:
    dist.init_process_group("gloo" if work.device == "cpu" else "nccl")
    if work.device != "cpu":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def _loop(work: Work, model: torch.nn.Module, optimizer: Any) -> None:
    schedule = work.schedule(optimizer)
    for batch in work.batches():
        work.loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    dist.destroy_process_group()


RAW: dict[str, Callable[[Work], None]] = {"ddp": ddp, "fsdp": fsdp, "zero2": zero2}
