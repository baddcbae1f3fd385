"""The gradients in DeepSpeed between backward passes and the update."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Module, Parameter
from torch.nn.utils import get_total_norm

from gearshift.engines.base import World


class PassGradients:
    """The gradients of the backward passes of one update.

    DeepSpeed does not clear its gradient buffers: it overwrites them in the first backward pass of
    an update and, with offload, copies them in the last pass. A parameter that one of the two did
    not reach would be updated with gradients of an earlier update. Seen with 0.19.8.
    """

    def __init__(self, zero: Any, model: Module):
        self._zero = zero
        self._names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self.reached: dict[Parameter, None] = {}
        """By the current backward pass, in its order."""
        self._ever: set[Parameter] = set()
        self._is_first = True
        for parameter in self._names:
            parameter.register_post_accumulate_grad_hook(self.reached.setdefault)
        # With offload it would wait for the device at each gradient of a backward pass. Their norm
        # tells as well whether one is not finite.
        zero.update_offload_overflow_tracker = lambda gradient: None
        if not _is_stage3(zero) and not zero.partition_gradients and zero.overlap_comm:
            self._reduce = zero.reduce_gradients
            zero.reduce_gradients = self._reduce_all

    def end_pass(self) -> None:
        """Call after each backward pass."""
        self._ever.update(self.reached)
        if self._is_first:
            for _, gathered in self._missed():
                gathered.zero_()
        self._is_first = False

    def finish(self) -> None:
        """Call before the update."""
        zero = self._zero
        if _offloads(zero):
            norms = zero.norm_for_param_grads
            if _is_stage3(zero):
                flats = zero.fp32_partitioned_groups_flat
            else:
                flats = zero.single_partition_of_fp32_groups
            for parameter, gathered in self._missed():
                # Copied to the optimizer as by DeepSpeed in the last pass.
                identity = zero.get_param_id(parameter)
                group, *_, offset, size = zero.grad_position[identity]
                part = gathered.narrow(0, 0, size)
                flats[group].grad.view(-1).narrow(0, offset, size).copy_(part)
                norms[identity] = part.float().norm()
            # All at once: DeepSpeed waits for the device at each of them.
            if norms and not _is_stage3(zero):
                device = zero.temp_grad_buffer_for_gpu_offload.device
                together = torch.stack([norm.to(device, torch.float64) for norm in norms.values()])
                norms.update(zip(norms, together.cpu(), strict=True))
        self._is_first = True

    def never_reached(self) -> list[str]:
        """Names of the parameters that no backward pass has reached."""
        return [name for p, name in self._names.items() if p not in self._ever]

    def discard(self) -> None:
        """Drop the gradients since the last update, as DeepSpeed does on overflow."""
        zero = self._zero
        zero.zero_grad(set_to_none=True)
        if _offloads(zero):
            zero.reset_cpu_buffers()
        # The next backward pass counts as the first one and does not accumulate.
        if _is_stage3(zero):
            zero.micro_step_id = 0
            zero.averaged_gradients.clear()
        else:
            zero.micro_step_id = -1
            for gathered in (zero.averaged_gradients, zero.all_grad_tensors):
                gathered.update(dict.fromkeys(gathered))
        self._is_first = True

    def _reduce_all(self, *args: Any, **kwargs: Any) -> None:
        """Average all gradients: stage 1 with overlap averages only those of the last pass."""
        for index, group in enumerate(self._zero.bit16_groups):
            for parameter in group:
                gradient = self._zero.get_gradient_for_reduction(parameter)
                if gradient is not None and parameter not in self.reached:
                    self._zero.reduce_ready_partitions_and_remove_grads(parameter, index)
        self._reduce(*args, **kwargs)

    def _missed(self) -> Iterator[tuple[Parameter, Tensor]]:
        """Parameters that the last backward pass did not reach, with their gradient buffers."""
        zero = self._zero
        missed = self._names.keys() - self.reached.keys()
        if _is_stage3(zero):
            flats = zero._DeepSpeedZeroOptimizer_Stage3__param_id_to_grad_partition
            for parameter in itertools.chain(*zero.fp16_groups):
                if parameter in missed:
                    yield parameter, flats[parameter.ds_id]
        elif _offloads(zero):
            for parameter in itertools.chain(*zero.params_in_partition):
                if parameter in missed:
                    yield parameter, _offloaded(zero, parameter)


def overflowed(zero: Any, world: World) -> bool:
    """Whether any rank has a gradient that is not finite, before an update. Collective.

    DeepSpeed itself would count a skipped step.
    """
    if _offloads(zero):  # one more norm of the gradients themselves would be taken on the host
        measured = list(zero.norm_for_param_grads.values())
    else:
        measured = list(itertools.chain(*zero.averaged_gradients.values()))
    is_bad = ~torch.isfinite(get_total_norm(measured).to(world.device))
    return bool(world.maximum(is_bad.to(torch.uint8)))


def _offloaded(zero: Any, parameter: Parameter) -> Tensor:
    """The accumulated gradients of this rank's part of a parameter, under stages 1 and 2."""
    identity = zero.get_param_id(parameter)
    group, source, _, size = zero.grad_position[identity]
    rank = dist.get_rank(zero.real_dp_process_group[group])
    part = zero._get_compact_grad_partition_slice(group, rank, identity, size)
    if part is not None:  # weights of 16 bits
        return part
    gathered = zero.accumulated_grads_in_cpu.get(identity)
    # It does not exist before the first update with more than one pass.
    if gathered is None:
        return torch.zeros(size)
    return gathered.narrow(0, source, size)


def _is_stage3(zero: Any) -> bool:
    return hasattr(zero, "fp32_partitioned_groups_flat")


def _offloads(zero: Any) -> bool:
    return bool(zero.offload_optimizer if _is_stage3(zero) else zero.cpu_offload)
