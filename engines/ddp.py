"""A full copy of the model on each rank, gradients averaged while backward runs (torch's DDP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel

from gearshift.engines.base import Engine, Options, World
from gearshift.engines.replicated import Replicated

BUCKET_BYTES = 25 * 2**20
"""Of gradients that DDP averages together, or up to one tensor more: its default."""


def ddp(world: World, options: Options) -> Engine:
    """The engine ddp; with one process it is the same as local."""
    return Replicated(world, options, BucketedAveraging)


class Replica(Module):
    """The module that the loop calls: the model, through `averaged` once that exists.

    Attributes are those of the model.
    """

    def __init__(self, model: Module):
        super().__init__()
        self.module = model
        self.averaged: list[DistributedDataParallel] = []  # a list: not a submodule

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        called = self.averaged[0] if self.averaged else self.module
        return called(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class BucketedAveraging:
    """Averages gradients bucket by bucket during backward.

    DDP waits for the gradients of all parameters; searching the graph of each step for those that
    it does not use took 3 to 20 % of a step of small models on a CPU. So the gradients of the first
    update are averaged by hand, and later a parameter that the last backward pass of a step did not
    reach gets a gradient of zero from us. What each rank has reached is averaged in the bucket of
    the last gradients: a collective of its own took 2 % of such a step.
    """

    def __init__(self, model: Module, world: World, options: Options):
        self.module = Replica(model)
        self._world = world
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._reached: set[Parameter] = set()  # by the backward passes of this step
        self._in_pass: set[Parameter] = set()
        self._is_first = True
        first = self._trained[0]
        self._ones = torch.ones(len(self._trained), dtype=first.dtype, device=first.device)
        # Its gradient: the share of ranks that reached each parameter
        self._shares = Parameter(torch.zeros_like(self._ones))
        if world.size > 1:
            for parameter in self._trained:
                parameter.register_post_accumulate_grad_hook(self._in_pass.add)

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        if not self._is_first and not self.module.averaged:
            self._wrap()
        averaged = next(iter(self.module.averaged), None)
        self._in_pass.clear()
        if averaged and not last:
            with averaged.no_sync():
                yield
        else:
            yield
        if self._world.size == 1:
            return
        self._reached |= self._in_pass
        if not last:
            return
        is_complete = len(self._reached) == len(self._trained)
        reached = self._ones
        if not is_complete:
            reached = reached.new_tensor([p in self._reached for p in self._trained])
        self._shares.grad = None
        if averaged:
            missed = [p for p in self._trained if p not in self._in_pass]
            # DDP averages the buckets that wait for them.
            zeros = [torch.zeros_like(p) for p in missed]
            torch.autograd.backward([*missed, self._shares], [*zeros, reached])
        else:
            self._shares.grad = reached
            self._average_first()
        if not is_complete:
            assert self._shares.grad is not None
            for parameter, share in zip(self._trained, self._shares.grad.tolist(), strict=True):
                if share == 0:
                    parameter.grad = None
        self._reached.clear()

    def _average_first(self) -> None:
        """Average in buckets as those of DDP, which is made when these gradients are cleared.

        The position of an element in its bucket decides the order in which more than two ranks are
        summed. A resumed run starts here, while an uninterrupted run uses DDP.
        """
        self._is_first = False
        limits = [dist._DEFAULT_FIRST_BUCKET_BYTES, BUCKET_BYTES]
        ordered = [*self._trained[::-1], self._shares]
        tensors: list[Any] = [*ordered]
        indices, _ = dist._compute_bucket_assignment_by_size(tensors, limits)
        for of_bucket in indices:
            bucket = [ordered[index] for index in of_bucket]
            buffer = bucket[0].new_zeros(sum(parameter.numel() for parameter in bucket))
            parts = buffer.split([parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                # In the layout of the parameter, or dense if it has gaps.
                strides = torch.empty_like(parameter, device="meta").stride()
                mean = part.as_strided(parameter.shape, strides)
                if parameter.grad is not None:
                    torch.mul(parameter.grad, 1 / self._world.size, out=mean)
                parameter.grad = mean
            dist.all_reduce(buffer)

    def _wrap(self) -> None:
        known = signature(DistributedDataParallel).parameters
        # Rank 0 broadcasts buffers after each update, under every engine.
        no_sync = {}
        for option in ("forward_sync_buffers", "broadcast_buffers"):  # the first in newer versions
            if option in known:
                no_sync[option] = False
                break
        if "init_sync" in known:  # not in torch 2.6; the ranks are equal already
            no_sync["init_sync"] = False
        model = _WithShares(self.module.module, self._shares)
        averaged = _FixedBuckets(model, gradient_as_bucket_view=True, **no_sync)
        self.module.averaged.append(averaged)


class _WithShares(Module):
    """A model and a parameter that comes before its own."""

    def __init__(self, model: Module, shares: Parameter):
        super().__init__()
        self.shares = shares
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class _FixedBuckets(DistributedDataParallel):
    """DDP with the same buckets from its first step on: parameters in reverse order.

    DDP itself rebuilds them after its first step, in the order of the gradients.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[Parameter], list[bool]]:
        parameters, are_sparse = super()._build_params_for_reducer()
        return parameters[::-1], are_sparse[::-1]
