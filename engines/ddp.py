"""A full copy of the model on each rank, gradients averaged while backward runs (torch's DDP)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel

from gearshift.engines.base import Engine, Options, World
from gearshift.engines.parameters import gradient_hooks
from gearshift.engines.replicated import Replicated

BUCKET_BYTES = 25 * 2**20
"""Of gradients that DDP averages together, or up to one tensor more: its default."""
_SHARES = "_gearshift_shares"


def ddp(world: World, options: Options) -> Engine:
    """The engine ddp; with one process it is the same as local."""
    return Replicated(world, options, BucketedAveraging)


class BucketedAveraging:
    """Averages gradients bucket by bucket during backward.

    DDP waits for the gradients of all parameters; searching the graph of each step for those that
    it does not use took 3 to 20 % of a step of small models on a CPU. So a parameter that the last
    backward pass of a step did not reach gets a gradient of zero from us. What each rank has
    reached is averaged in the bucket of the last gradients: a collective of its own took 2 % of
    such a step.
    """

    def __init__(self, model: Module, world: World, options: Options):
        self.module = model
        self._averaged: DistributedDataParallel | None = None
        if world.size == 1:
            return
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._reached: set[Parameter] = set()  # by the backward passes of this step
        self._in_pass: set[Parameter] = set()
        for parameter in self._trained:
            parameter.register_post_accumulate_grad_hook(self._in_pass.add)
        first = self._trained[0]
        self._ones = torch.ones(len(self._trained), dtype=first.dtype, device=first.device)
        # Its gradient: the share of ranks that reached each parameter
        self._shares = Parameter(torch.zeros_like(self._ones))
        self._averaged = _FixedBuckets(model, self._shares)
        self.module = self._averaged

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        averaged = self._averaged
        if averaged is None:
            yield
            return
        self._in_pass.clear()
        if last:
            yield
            self._reached |= self._in_pass
            self._complete()
        else:
            with averaged.no_sync():
                yield
            self._reached |= self._in_pass

    def _complete(self) -> None:
        """Let DDP average the last buckets, and drop the gradients of what no rank reached."""
        is_complete = len(self._reached) == len(self._trained)
        reached = self._ones
        if not is_complete:
            reached = reached.new_tensor([p in self._reached for p in self._trained])
        missed = [p for p in self._trained if p not in self._in_pass]
        zeros = [torch.zeros_like(p) for p in missed]
        self._shares.grad = None
        with _unnoticed(missed):
            torch.autograd.backward([*missed, self._shares], [*zeros, reached])
        if not is_complete:
            assert self._shares.grad is not None
            for parameter, share in zip(self._trained, self._shares.grad.tolist(), strict=True):
                if share == 0:
                    parameter.grad = None
        self._reached.clear()


@contextmanager
def _unnoticed(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Inside, gradients reach `parameters` without their hooks, also frozen ones."""
    hooks = []
    frozen = [p for p in parameters if not p.requires_grad]  # by the forward pass
    for parameter in parameters:
        parameter.requires_grad_(True)
        for registered in gradient_hooks(parameter).values():
            hooks.append((registered, dict(registered)))
            registered.clear()
    try:
        yield
    finally:
        for registered, before in hooks:
            registered.update(before)
        for parameter in frozen:
            parameter.requires_grad_(False)


class _FixedBuckets(DistributedDataParallel):
    """DDP with the same buckets from its first step on: parameters in reverse order.

    DDP itself rebuilds them after its first step, in the order of the gradients. The position of
    an element in its bucket decides the order in which more than two ranks are summed, and a
    resumed run has to sum as an uninterrupted one. Attributes are those of the model.
    """

    def __init__(self, model: Module, shares: Parameter):
        """`shares`: averaged with the parameters of `model` itself, whose gradients come last."""
        model.register_parameter(_SHARES, shares)  # while DDP looks for parameters
        # The ranks are equal already.
        super().__init__(model, gradient_as_bucket_view=True, init_sync=False)
        delattr(model, _SHARES)
        # Rank 0 broadcasts buffers after each update, under every engine.
        self.broadcast_buffers = False
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def __getattr__(self, name: str) -> Any:
        model = super().__getattr__("module")
        return model if name == "module" else getattr(model, name)

    def _build_params_for_reducer(self) -> Any:
        parameters, are_sparse = super()._build_params_for_reducer()
        return parameters[::-1], are_sparse[::-1]
