"""The update under ZeRO stage 2 with offload: in chunks, each copied to the device at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import SGD, Optimizer

from engines.base import World
from engines.overlapped_update import can_overlap
from engines.state import ADAM
from engines.zero.state import ZeroState

CHUNK = 2**22
"""Elements of a chunk, 16 MiB in fp32.

A fused kernel may round the last elements of a tensor differently, those that fill no vector of the
processor. So only the last chunk may have such a rest.
"""
_INTERNALS = (
    *("micro_step_id", "overflow", "_global_grad_norm", "_offload_accumulated_param_ids"),
    *("averaged_gradients", "loss_scale", "bit16_groups_flat", "real_dp_process_group"),
    *("_wait_for_offload_copies", "scaled_global_norm", "unscale_and_clip_grads"),
    *("reset_cpu_buffers", "nccl_start_alignment_factor", "allgather_bucket_size"),
)
"""Attributes of DeepSpeed's optimizer; its others are read at once."""
_Key = tuple[int, int]
"""A chunk: the number of its parameter group, and its start in the flat tensor of the group."""


def can_chunk(optimizer: Optimizer) -> bool:
    """Whether a part of a flat tensor may be updated alone, by another optimizer of this class."""
    is_fused = all(group.get("fused") for group in optimizer.param_groups)
    return is_fused and type(optimizer) in (*ADAM, SGD) and can_overlap(optimizer)


def names_by_pass(model: Module, blocks: Sequence[Module]) -> dict[Module, list[str]]:
    """The parameters that each block needs, and those that `model` needs outside of blocks."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    outside: dict[Module, None] = {}
    found = [model]
    while found:
        outside.update(dict.fromkeys(found))
        found = [m for parent in found for m in parent.children() if m not in blocks]
    rest = [p for module in outside for p in module.parameters(recurse=False)]
    owned = {model: rest, **{block: block.parameters() for block in blocks}}
    return {module: [names[p] for p in held] for module, held in owned.items()}


class OffloadUpdate:
    """The step of DeepSpeed's optimizer of stage 2 with offload, with the same results. Collective.

    DeepSpeed updates all weights, then casts them, then copies them to the device. Here each chunk
    is copied while the next one is updated. With one rank a thread does so, and the next pass
    begins: a block waits for the chunks of its own weights only, the model for those outside of
    blocks. Several ranks gather the weights after all copies.
    """

    def __init__(
        self,
        zero: Any,
        state: ZeroState,
        owned: Mapping[Module, Sequence[str]],
        world: World,
        *,
        compiled: bool,
        chunk: int = CHUNK,
    ):
        """Replace the step of `zero`. Raises AttributeError if DeepSpeed has other internals.

        `owned`: what `names_by_pass` returns. `compiled`:
        whether torch.compile traces these passes. `chunk`: elements, a multiple of 64.
        """
        for name in _INTERNALS:
            getattr(zero, name)
        self._zero, self._world, self._chunk = zero, world, chunk
        self._optimizer = state.optimizer
        self._flats: Sequence[Tensor] = zero.single_partition_of_fp32_groups
        self._buffers: Sequence[Tensor] = zero.param_buffer_of_bit16_for_cpu_offload_groups
        parts = zero.parallel_partitioned_bit16_groups
        self._weights = [of_ranks[world.rank].detach() for of_ranks in parts]
        self._library: Any = import_module(type(zero).__module__)
        self._device: Any = torch.get_device_module(world.device)
        self._copies = self._device.Stream()
        self._find_chunks(state, owned)
        self._running: dict[_Key, Future[None]] = {}
        self._own_step: Callable[[], None] = zero.step
        zero.step = self._step
        self._thread = ThreadPoolExecutor(1, "update") if world.size == 1 else None
        wait: Callable[..., None] = self._wait_for
        if compiled:
            wait = torch.compiler.disable(wait)
        waiting = owned if self._thread else ()
        self._hooks = [m.register_forward_pre_hook(wait, prepend=True) for m in waiting]

    def _find_chunks(self, state: ZeroState, owned: Mapping[Module, Sequence[str]]) -> None:
        groups = {id(flat): number for number, flat in enumerate(self._flats)}
        held: dict[str, list[_Key]] = {}
        for name, interval in state.intervals():
            first = interval.offset // self._chunk * self._chunk
            starts = range(first, interval.offset + interval.size, self._chunk)
            held[name] = [(groups[id(interval.flat)], start) for start in starts]
        self._needed = {
            module: [key for name in names for key in held.get(name, ())]
            for module, names in owned.items()
        }
        """What the forward pass of a module waits for."""
        self._order = dict.fromkeys(chain(*self._needed.values()))
        """The chunks in the order of the first pass; the rest of the flat tensors is padding."""

    def wait(self) -> None:
        """Wait until all weights are updated. Raises what the update raised."""
        for key in list(self._running):
            self._running.pop(key).result()
        self._device.current_stream().wait_stream(self._copies)

    def close(self) -> None:
        """End the thread, after the update, and let DeepSpeed update again."""
        if self._thread:
            self._thread.shutdown()
        for hook in self._hooks:
            hook.remove()
        del self._zero.step

    def _wait_for(self, module: Module, _inputs: Any) -> None:
        if self._running:
            for key in self._needed[module]:
                if key in self._running:
                    self._running.pop(key).result()
            self._device.current_stream().wait_stream(self._copies)

    def _step(self) -> None:
        """As the step of DeepSpeed 0.19.8 with offload."""
        zero = self._zero
        zero._wait_for_offload_copies()
        norm = zero.scaled_global_norm()
        if self._library.is_invalid_grad_norm(norm):
            self._own_step()
            return
        zero.micro_step_id, zero.overflow = -1, False
        zero._offload_accumulated_param_ids = set()
        zero._global_grad_norm = norm / zero.loss_scale
        factor = torch.ones(())
        zero.unscale_and_clip_grads([factor], norm)
        self._start(factor)
        zero.averaged_gradients.update(dict.fromkeys(zero.averaged_gradients))
        zero.reset_cpu_buffers()
        if self._world.size > 1:
            self.wait()
            self._library.all_gather_dp_groups(
                groups_flat=zero.bit16_groups_flat,
                partitioned_param_groups=zero.parallel_partitioned_bit16_groups,
                dp_process_group=zero.real_dp_process_group,
                start_alignment_factor=zero.nccl_start_alignment_factor,
                allgather_bucket_size=zero.allgather_bucket_size,
            )

    def _start(self, factor: Tensor) -> None:
        """Start to update with gradients times the scalar `factor`."""
        self.wait()
        # The last pass may still read the weights.
        self._copies.wait_stream(self._device.current_stream())
        groups = []
        for flat, group in zip(self._flats, self._optimizer.param_groups, strict=True):
            slots = self._optimizer.state[flat]
            # Copies: the loop sets the next learning rate in the group itself.
            options = {key: value for key, value in group.items() if key != "params"}
            groups.append((options, {k: v.clone() if k == "step" else v for k, v in slots.items()}))
            if "step" in slots:
                slots["step"] += 1
        for key in self._order:
            work = (key, *groups[key[0]], factor)
            if self._thread:
                self._running[key] = self._thread.submit(self._update, *work)
            else:
                self._update(*work)

    def _update(
        self, key: _Key, options: Mapping[str, Any], slots: Mapping[str, Tensor], factor: Tensor
    ) -> None:
        number, start = key
        flat, part = self._flats[number], slice(start, start + self._chunk)
        weights = flat.detach()[part]
        assert flat.grad is not None
        weights.grad = flat.grad[part]
        if factor != 1:
            weights.grad.mul_(factor)
        kind: Any = type(self._optimizer)
        optimizer = kind([{**options, "params": [weights]}])
        optimizer.state[weights] = {
            name: value.clone() if name == "step" else value[part] for name, value in slots.items()
        }
        optimizer.step()
        buffer = self._buffers[number][part]
        source = weights if weights.dtype == buffer.dtype else buffer.copy_(weights)
        with self._device.stream(self._copies):
            self._weights[number][part].copy_(source, non_blocking=True)
