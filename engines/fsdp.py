"""Weights, gradients and optimizer state sharded over ranks by torch's fully_shard (FSDP2)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.nn import Module, Parameter

from gearshift.engines.base import (
    Blocks,
    Engine,
    EngineError,
    OptimizerSpec,
    Options,
    State,
    Update,
    World,
)
from gearshift.engines.device import pinned_exactly, use_threads
from gearshift.engines.norms import norms_in_fp32
from gearshift.engines.optimizer_step import (
    EngineWithOptimizerStep,
    average,
    global_norm,
    gradients_of,
)
from gearshift.engines.precision import DTYPES, check_precision, set_matmul_precision
from gearshift.engines.preparation import change_forward, freeze_empty, move_to_device
from gearshift.engines.state import full_interval, gather_state
from gearshift.engines.state_cover import check_cover
from gearshift.engines.used_parameters import UsedParameters
from gearshift.engines.weight_changes import WeightChanges

if TYPE_CHECKING:
    from gearshift.engines.overlapped_update import OverlappedUpdate

log = logging.getLogger(__name__)


def fsdp(world: World, options: Options) -> Engine:
    """The engine fsdp, with shards on the device."""
    return FSDP(world, options, offload=False)


def fsdp_offload(world: World, options: Options) -> Engine:
    """The engine fsdp-offload, with shards and optimizer in host memory.

    On a CPU it is the same as fsdp, and logs a warning.
    """
    if world.device.type == "cpu" and world.rank == 0:
        log.warning("fsdp-offload on a CPU is the same as fsdp: shards are in host memory already")
    return FSDP(world, options, offload=True)


class FSDP(EngineWithOptimizerStep):
    """Each rank holds an even shard of the rows of every tensor. Collective.

    In one step all ranks must use the same parameters. With `hybrid_shard` each node has a replica.
    `offload` and `reduce_each_micro_batch` average gradients after each micro-batch, for memory;
    otherwise full gradients stay on the device until the last one.
    """

    can_retry_step = False  # a failed pass leaves its modules gathered

    def __init__(self, world: World, options: Options, *, offload: bool):
        check_precision(options.precision, world.device)
        self.world = world
        self.gathers_weights = world.size > 1
        self._options = options
        self._holds_gradients = not (offload or options.reduce_each_micro_batch)
        self._offloads = offload and world.device.type != "cpu"
        self._restore = [set_matmul_precision(options.precision)]
        self._overlapped: OverlappedUpdate | None = None
        self._has_full = False
        self._shards = world.local_size if options.hybrid_shard else world.size
        if options.hybrid_shard:
            size = world.local_size
            most, fewest = world.maximum(torch.tensor([size, -size])).tolist()
            if most != -fewest:  # on every rank
                raise EngineError(
                    "engine.hybrid_shard needs the same number of processes on each node; there "
                    f"are nodes with {-fewest} and with {most}"
                )
        self._replicas = world.size // self._shards

    def prepare(self, model: Module, optimizer: OptimizerSpec, blocks: Blocks) -> Module:
        freeze_empty(model)
        if self._options.precision in DTYPES:
            norms_in_fp32(model)
        change_forward(model, blocks, self._options, self.world.device)
        with pinned_exactly(self.world.device):
            self._shard(model, blocks)
        if self._offloads:
            self._restore.append(use_threads(self._options.offload_threads, self.world.local_size))
        self.begin_updates(model, _shards_apart(optimizer))
        check_cover(self.state(), self.world)
        if self._offloads:
            self._overlap_update()
        self._used = UsedParameters(self.world, model, lambda m: isinstance(m, FSDPModule))
        self._restore.append(self._used.close)
        self.resize(self._options.micro_batch, self._options.accumulation)
        return model

    def _watch_weights(self) -> WeightChanges:
        changes = WeightChanges(
            self.world,
            self._options,
            self._named,
            pinned=self._named,
            sharded=self._sharded,
            interval_of=self._interval,
        )
        changes.watch(self._units, self._gathered)
        return changes

    def _gathered(self, unit: Module) -> Iterator[tuple[str, Parameter]]:
        """The parameters of `unit`, which are gathered in its forward pass."""
        for name, module, attribute in self._owned[unit]:
            yield name, module._parameters[attribute]

    def _overlap_update(self) -> None:
        from gearshift.engines.overlapped_update import OverlappedUpdate, can_overlap

        if not can_overlap(self._optimizer):
            return
        owned = {}
        for unit in reversed(self._units):
            owned[unit] = [p for _, p in self._gathered(unit) if p.requires_grad]
        owned[self._model] += self._whole  # they may be read before their blocks
        self._overlapped = OverlappedUpdate(self._optimizer, owned, self.world.device)
        self._restore.append(self._overlapped.close)

    def _shard(self, model: Module, blocks: Blocks) -> None:
        axes = {"replicas": self._replicas, "shards": self._shards}
        if self._replicas == 1:
            del axes["replicas"]
        mesh = init_device_mesh(
            self.world.device.type, tuple(axes.values()), mesh_dim_names=tuple(axes)
        )
        dtype = DTYPES.get(self._options.precision)
        # Gathered in 16 bits, reduced in fp32. Autocast alone would gather fp32, and keep a copy
        # of all gathered weights in 16 bits until the backward pass. It casts the inputs.
        policy = MixedPrecisionPolicy(
            param_dtype=dtype,
            reduce_dtype=torch.float32 if dtype else None,
            cast_forward_inputs=False,
        )
        shard = partial(
            fully_shard,
            mesh=mesh,
            mp_policy=policy,
            offload_policy=CPUOffloadPolicy() if self._offloads else OffloadPolicy(),
            # Every rank keeps the parameters without an axis or without elements.
            ignored_params={p for p in model.parameters() if 0 in (p.dim(), p.numel())},
        )
        # One by one, so that no device needs to hold more than one full block.
        for block in independent_blocks(model, blocks):
            move_to_device(block, self.world)
            shard(block)
        move_to_device(model, self.world)
        shard(model)
        self._units: list[Any] = [m for m in model.modules() if isinstance(m, FSDPModule)]
        """The model itself, then its blocks."""
        self._find_owners(model)
        if dtype and torch.__version__ >= "2.15":
            for unit in self._units:
                hook = torch.compiler.disable(self._add_in_16_bits)
                unit.register_forward_pre_hook(hook)  # after that of FSDP, which gathers them

    def _find_owners(self, model: Module) -> None:
        """Find the unit that gathers each sharded parameter."""
        unit_of: dict[Module, Module] = {}
        for unit in self._units:
            unit_of |= dict.fromkeys(unit.modules(), unit)
        self._sharded: dict[str, Parameter] = {}
        self._whole: list[Parameter] = []
        """The trained ones that every rank keeps."""
        self._owned: dict[Module, list[tuple[str, Any, str]]] = {unit: [] for unit in self._units}
        """By unit the name of each parameter, its module, and its attribute there."""
        for name, parameter in model.named_parameters():
            path, _, attribute = name.rpartition(".")
            module = model.get_submodule(path)
            if isinstance(parameter, DTensor):
                self._sharded[name] = parameter
                self._owned[unit_of[module]].append((name, module, attribute))
            elif parameter.requires_grad:
                self._whole.append(parameter)

    def _add_in_16_bits(self, unit: Module, _inputs: Any) -> None:
        """Add the gradients of two uses of a weight in the dtype of the weight in each micro-batch.

        As other engines do, and FSDP before torch 2.15, which adds them in fp32 in the first one.
        """
        for _, weight in self._gathered(unit):
            if weight.requires_grad and weight.grad is None:
                weight.grad_dtype = None  # until the backward pass ends

    def step(self) -> Update:
        """As `Engine.step`; with offload the update continues while the next pass begins."""
        self.settle()
        self._used.add_gradients(p for p in self._sharded.values() if p.grad is not None)
        with self._used.exchange():
            self._used.end_segment()
            return super().step()

    def backward(self, loss: Tensor) -> None:
        self._used.end_forward()
        super().backward(loss)

    def _total_norm(self) -> Tensor:
        average(self._whole, self.world)
        shards = gradients_of(self._sharded.values())
        return global_norm(shards, self.world, self._replicas, gradients_of(self._whole))

    def _apply(self, factor: Tensor | None) -> None:
        if self._overlapped:
            self._overlapped.start(factor)
        else:
            super()._apply(factor)

    def settle(self) -> None:
        if self._overlapped:
            self._overlapped.wait()

    def accumulate(self, last: bool) -> AbstractContextManager[None]:
        assert self._changes is not None
        self._changes.begin_pass()
        self._units[0].set_requires_gradient_sync(last or not self._holds_gradients)
        return self._used.micro_batch(last)

    def resize(self, micro_batch: int, accumulation: int) -> None:
        """As `Engine.resize`.

        FSDP expects the full tensors of all modules where a pass keeps gradients of 16 bits, also
        of a module that has not been used yet, so each is gathered once.
        """
        keeps = accumulation > 1 and self._holds_gradients and self._options.precision in DTYPES
        if keeps and not self._has_full:
            self._has_full = True
            for unit in self._units:
                unit.unshard()
                unit.reshard()

    @torch.no_grad()  # with gradients, to_local makes a node and a view of each tensor
    def state(self) -> State:
        self.settle()
        replica = (self.world.rank // self._shards, self._replicas)
        state = gather_state(
            self._model,
            self._shapes,
            self._named,
            self._optimizer,
            self.groups,
            self.scale_state,
            self._interval,
            weight_replica=replica,
            slot_replica=replica,
        )
        everywhere = (self.world.rank, self.world.size)
        pieces = []
        for piece in state.pieces:
            if piece.name not in self._sharded:
                piece = replace(piece, replica=everywhere)
            pieces.append(piece)
        return replace(state, pieces=pieces)

    def _interval(self, tensor: Tensor) -> tuple[int, Tensor]:
        """Rows as in torch.chunk: the same number on every rank, fewer on the last ones."""
        if not isinstance(tensor, DTensor):
            return full_interval(tensor)
        rows = ceil(len(tensor) / self._shards)
        first = min(self.world.rank % self._shards * rows, len(tensor))
        return first * tensor.stride(0), tensor.to_local().view(-1)

    def refresh(self) -> None:
        """Drop full tensors that an evaluation has gathered; the next use gathers them again."""
        self.settle()
        for unit in self._units:
            unit.reshard()

    def close(self) -> None:
        for restore in self._restore:
            restore()


def independent_blocks(model: Module, blocks: Blocks) -> list[Module]:
    """The blocks that share no parameter with another block or with the rest of `model`.

    A parameter tied across the border of a block would be sharded on one side only.
    """
    uses = _uses(model)
    independent = []
    for block in blocks:
        is_independent = _uses(block).items() <= uses.items()
        if block is not model and is_independent:
            independent.append(block)
    return independent


def _uses(model: Module) -> Counter[Parameter]:
    """How many modules have each parameter."""
    return Counter(chain.from_iterable(m.parameters(recurse=False) for m in model.modules()))


def _shards_apart(spec: OptimizerSpec) -> OptimizerSpec:
    """The recipe with shards and whole parameters in groups of their own.

    A fused kernel takes all parameters of a group at once, of one type only.
    """

    def group_of(name: str, parameter: Parameter) -> int:
        index = spec.group_of(name, parameter)
        return index if isinstance(parameter, DTensor) else index + len(spec.options)

    return replace(spec, options=[*spec.options, *spec.options], group_of=group_of)
