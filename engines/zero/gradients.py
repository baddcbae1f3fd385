"""The gradients that DeepSpeed holds between backward passes and the update."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Set
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.utils import get_total_norm

from engines.base import World


class PassGradients:
    """The backward passes of one update, and what each parameter got from them.

    DeepSpeed does not clear what it gathers gradients in: it overwrites it in the first backward
    pass of a window and, when offloading, fetches it in the last. A parameter that one of the two
    did not reach would be updated with gradients of an earlier window. Seen with 0.19.8.
    """

    def __init__(self, zero: Any, model: Module):
        self._zero = zero
        self._names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self._reached: set[Parameter] = set()  # by the backward pass that runs
        self._ever: set[Parameter] = set()
        self._is_first = True
        for parameter in self._names:
            parameter.register_post_accumulate_grad_hook(self._reached.add)
        if not _is_stage3(zero) and not zero.partition_gradients and zero.overlap_comm:
            self._reduce = zero.reduce_gradients
            zero.reduce_gradients = self._reduce_all

    def open_pass(self) -> None:
        """Before each backward pass."""
        self._reached.clear()

    def close_pass(self) -> None:
        """After each backward pass."""
        self._ever |= self._reached
        if self._is_first:
            for _, gathered in self._missed():
                gathered.zero_()
        self._is_first = False

    def close(self) -> None:
        """Before the update."""
        if _offloads(self._zero):
            for parameter, gathered in self._missed():
                _fetch(self._zero, parameter, gathered)
        self._is_first = True

    def unreached(self) -> list[str]:
        """Names of parameters that no backward pass reached so far."""
        return [name for p, name in self._names.items() if p not in self._ever]

    def discard(self) -> None:
        """Forget the backward passes of this window, as DeepSpeed does upon an overflow."""
        zero = self._zero
        zero.zero_grad(set_to_none=True)
        # From here the next backward pass counts as the first and does not add.
        zero.micro_step_id = 0 if _is_stage3(zero) else -1
        if _offloads(zero):
            zero.reset_cpu_buffers()
        elif _is_stage3(zero):
            zero.averaged_gradients = {}
        else:
            for gathered in ("averaged_gradients", "all_grad_tensors"):  # the second since 0.18
                for group in getattr(zero, gathered, {}):
                    getattr(zero, gathered)[group] = None
        self._is_first = True

    def _reduce_all(self, *args: Any, **kwargs: Any) -> None:
        """Stage 1 with overlap averages in the last pass, and only what that pass reached."""
        for index, group in enumerate(self._zero.bit16_groups):
            for parameter in group:
                if parameter.grad is not None and parameter not in self._reached:
                    self._zero.reduce_ready_partitions_and_remove_grads(parameter, index)
        self._reduce(*args, **kwargs)

    def _missed(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Parameters the last backward pass did not reach, with what was gathered for them."""
        missed = self._names.keys() - self._reached
        return _gathered(self._zero, missed) if missed else iter(())


def overflowed(zero: Any, world: World) -> bool:
    """Whether any rank holds a gradient that is not finite, before an update. Collective.

    DeepSpeed itself looks for them only if told that it runs in fp16; since 0.19 in fp32, too.
    """
    wrong = ~torch.isfinite(get_total_norm(_averaged(zero)).to(world.device))
    return bool(world.maximum(wrong.to(torch.uint8)))


def _averaged(zero: Any) -> list[Tensor]:
    """The gradients of what this rank updates, when a window of backward passes is over."""
    if not _offloads(zero):
        return [g for group in zero.averaged_gradients.values() for g in group]
    flats = (
        zero.fp32_partitioned_groups_flat
        if _is_stage3(zero)
        else zero.single_partition_of_fp32_groups
    )
    return [flat.grad for flat in flats]


def _gathered(zero: Any, parameters: Set[Parameter]) -> Iterator[tuple[Parameter, Tensor]]:
    """What DeepSpeed adds the gradients of `parameters` up in from pass to pass, on this rank."""
    if _is_stage3(zero):
        flats = zero._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
        for parameter in itertools.chain(*zero.fp16_groups):
            if parameter in parameters:
                yield parameter, flats[parameter.ds_id]
    elif _offloads(zero):
        for parameter in itertools.chain(*zero.params_in_partition):
            if parameter in parameters:
                gathered = zero.accumulated_grads_in_cpu.get(zero.get_param_id(parameter))
                # There is none before the first window of more than one pass.
                yield parameter, torch.zeros(parameter.numel()) if gathered is None else gathered


def _fetch(zero: Any, parameter: Parameter, gathered: Tensor) -> None:
    """Give the offloaded optimizer what was gathered, as DeepSpeed does in the last pass."""
    identity = zero.get_param_id(parameter)
    if _is_stage3(zero):
        group, offset, size = zero.grad_position[identity]
        flat, part = zero.fp32_partitioned_groups_flat[group], gathered.narrow(0, 0, size)
    else:
        group, source, offset, size = zero.grad_position[identity]
        flat = zero.single_partition_of_fp32_groups[group]
        part = gathered.narrow(0, source, size)
    flat.grad.view(-1).narrow(0, offset, size).copy_(part)
    zero.norm_for_param_grads[identity] = part.float().norm()


def _is_stage3(zero: Any) -> bool:
    return hasattr(zero, "fp32_partitioned_groups_flat")


def _offloads(zero: Any) -> bool:
    return bool(zero.offload_optimizer if _is_stage3(zero) else zero.cpu_offload)
