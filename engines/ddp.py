"""A full copy of the model on each rank, gradients averaged while backward runs (torch's DDP)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import Module, Parameter
from torch.nn.parallel import DistributedDataParallel

from engines.base import Engine, EngineError, Options, World
from engines.replicated import Replicated

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
        """Call the model, or DDP around it."""
        return (self.averaged[0] if self.averaged else self.module)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class BucketedAveraging:
    """Averages gradients bucket by bucket during backward.

    DDP must know beforehand whether a backward pass leaves parameters out; searching the graph for
    them at each step took 3 to 20 % of a step of small models on a CPU. So the gradients of the
    first update are averaged by hand, which shows the used parameters; DDP searches only if needed.
    """

    def __init__(self, model: Module, world: World, options: Options):
        self.module = Replica(model)
        self._world = world
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._used: set[Parameter] = set()
        self._uses_all = True
        self._is_first = True
        self._hooks: list[Any] = []
        if world.size > 1:
            self._hooks = [
                p.register_post_accumulate_grad_hook(self._used.add) for p in self._trained
            ]

    @contextmanager
    def accumulate(self, last: bool) -> Iterator[None]:
        """As `Engine.accumulate`."""
        if not self._is_first:
            if not self.module.averaged:
                self._wrap(search=not self._uses_all)
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

    def load_steps(self, steps: Mapping[str, float]) -> None:
        """Parameters with fewer updates than others were unused in a step."""
        self._uses_all &= len(set(steps.values())) <= 1

    def _average_first(self) -> None:
        """Average in buckets as those of DDP, which is made when these gradients are cleared.

        The position of an element in its bucket decides the order in which more than two ranks are
        summed. A resumed run starts here, while an uninterrupted run uses DDP.
        """
        for hook in self._hooks:
            hook.remove()
        self._is_first = False
        self._uses_all = not self._world.agree(int(not self._uses_all))
        used = torch.tensor([p.grad is not None for p in self._trained], dtype=torch.uint8)
        flags = zip(self._trained, self._world.maximum(used).tolist(), strict=True)
        reached = {parameter for parameter, is_used in flags if is_used}
        for bucket in _buckets(self._trained[::-1] if self._uses_all else self._trained):
            buffer = bucket[0].new_zeros(sum(parameter.numel() for parameter in bucket))
            parts = buffer.split([parameter.numel() for parameter in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                # In the layout of the parameter, or dense if it has gaps.
                mean = part.as_strided(
                    parameter.shape, torch.empty_like(parameter, device="meta").stride()
                )
                if parameter.grad is not None:
                    torch.mul(parameter.grad, 1 / self._world.size, out=mean)
                parameter.grad = mean if parameter in reached else None
            dist.all_reduce(buffer)

    def _wrap(self, search: bool) -> None:
        known = signature(DistributedDataParallel).parameters
        # Rank 0 broadcasts buffers after each update, under every engine.
        renamed = "forward_sync_buffers" in known  # in newer versions
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


def _buckets(parameters: Sequence[Parameter]) -> list[list[Parameter]]:
    """As DDP makes them of parameters in this order."""
    limits = [dist._DEFAULT_FIRST_BUCKET_BYTES, BUCKET_BYTES]
    tensors: list[Any] = [*parameters]
    indices, _ = dist._compute_bucket_assignment_by_size(tensors, limits)
    return [[parameters[index] for index in bucket] for bucket in indices]


class _FixedBuckets(DistributedDataParallel):
    """DDP with the same buckets from its first step on: parameters in reverse order.

    DDP itself rebuilds them after its first step, in the order of the gradients, unless it searches
    the graph.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.reducer._push_all_rebuilt_params()
        self.reducer._rebuild_buckets()

    def _build_params_for_reducer(self) -> tuple[list[Parameter], list[bool]]:
        parameters, are_sparse = super()._build_params_for_reducer()
        return parameters[::-1], are_sparse[::-1]


def _check_averaged(averaged: DistributedDataParallel) -> None:
    """Raise EngineError at once; DDP itself fails in the next step, after different updates."""
    try:
        averaged._check_reducer_finalized()
    except RuntimeError as error:
        raise EngineError(
            "a step left out parameters that the first step used, so gradients were not averaged; "
            "use engine local or fsdp for such a model"
        ) from error
