"""A full copy of the model on each rank, gradients averaged while backward runs (torch's DDP)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel

from engines.base import Engine, EngineError, Options, World
from engines.replicated import Replicated


def ddp(world: World, options: Options) -> Engine:
    """The engine ddp. A world of one has nobody to average with: it is then local."""
    return Replicated(world, options, BucketedAveraging)


class Replica(Module):
    """What the loop calls: the model, by way of `averaged` once there is one.

    Attributes are those of the model.
    """

    def __init__(self, model: Module):
        super().__init__()
        self.module = model
        self.averaged: list[DistributedDataParallel] = []  # a list: not a submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return (self.averaged[0] if self.averaged else self.module)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class BucketedAveraging:
    """Averages gradients bucket by bucket as backward gives them.

    DDP wants to know beforehand whether a backward pass leaves parameters out; to search the graph
    for them at each step took 3 to 20 % of a step of small models on a CPU. So the first update's
    gradients are averaged by hand, which shows what is used; the search is on only where needed.
    """

    def __init__(self, model: Module, world: World, options: Options):
        self.module = Replica(model)
        self._world = world
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._used: set[Parameter] = set()
        self._uses_all = True
        self._hooks: list[Any] = []
        if world.size == 1:
            return
        if options.compile:
            # The compiler cuts the graph where DDP has its buckets only if DDP calls the model from
            # the first time on; and a compiled graph has few nodes to search.
            self._wrap(search=True)
        else:
            self._hooks = [
                p.register_post_accumulate_grad_hook(self._used.add) for p in self._trained
            ]

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        if self.module.averaged:
            with nullcontext() if last else self.module.averaged[0].no_sync():
                yield
            if last:
                _check_averaged(self.module.averaged[0])
            return
        yield
        if self._world.size > 1:
            self._uses_all &= len(self._used) == len(self._trained)
            self._used.clear()
            if last:
                self._average_first()

    def recall(self, steps: Mapping[str, float]) -> None:
        """Of parameters that were updated less often than others a step made no use."""
        self._uses_all &= len(set(steps.values())) <= 1

    def _average_first(self) -> None:
        """Average in the buckets that DDP has from now on.

        Where an element stands in its bucket decides in which order more than two ranks are added
        up. A run that goes on begins here, where the run that was not stopped is under DDP.
        """
        for callback in self._hooks:
            callback.remove()
        self._wrap(search=bool(self._world.agree(int(not self._uses_all))))
        used = torch.tensor([p.grad is not None for p in self._trained], dtype=torch.uint8)
        flags = zip(self._trained, self._world.maximum(used).tolist(), strict=True)
        reached = {parameter for parameter, is_used in flags if is_used}
        for bucket in self.module.averaged[0].reducer._get_zeros_like_grad_buckets():
            means = list(zip(bucket.parameters(), bucket.gradients(), strict=True))
            for parameter, mean in means:
                if parameter.grad is not None:
                    torch.mul(parameter.grad, 1 / self._world.size, out=mean)
            dist.all_reduce(bucket.buffer())
            for parameter, mean in means:
                parameter.grad = mean if parameter in reached else None

    def _wrap(self, search: bool) -> None:
        known = signature(DistributedDataParallel).parameters
        # Buffers are given from rank 0 to all after each update, under every engine alike.
        renamed = "forward_sync_buffers" in known  # of late
        no_sync = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        if "init_sync" in known:  # not in torch 2.6; the ranks are equal already
            no_sync["init_sync"] = False
        kind = DistributedDataParallel if search else _FixedBuckets
        averaged = kind(
            self.module.module,
            find_unused_parameters=search,
            gradient_as_bucket_view=True,
            **no_sync,  # type: ignore[arg-type]
        )
        self.module.averaged.append(averaged)


class _FixedBuckets(DistributedDataParallel):
    """DDP whose buckets are the same from its first step on: parameters in reverse order.

    DDP itself forms them anew after its first step, in the order in which gradients came, unless
    it searches the graph.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[Parameter], list[bool]]:
        parameters, are_sparse = super()._build_params_for_reducer()
        return parameters[::-1], are_sparse[::-1]


def _check_averaged(averaged: DistributedDataParallel) -> None:
    """DDP itself would notice at the next step only, after ranks had taken different updates."""
    try:
        averaged._check_reducer_finalized()
    except RuntimeError as fault:
        raise EngineError(
            "a step left out parameters that the first step used, and gradients were not averaged; "
            "engines that can train such a model: local, fsdp"
        ) from fault
