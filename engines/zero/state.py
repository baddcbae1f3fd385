"""Where DeepSpeed keeps the fp32 weights and the optimizer slots of each parameter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import mode
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import Optimizer

from gearshift.engines.base import EngineError, Numbers, Piece, State, World
from gearshift.engines.state import (
    WEIGHT,
    fill_slots,
    read_buffers,
    read_counts,
    slot_names,
    stored_buffers,
)

_MAX_SHOWN = 5


class ZeroState:
    """The state of a model under ZeRO by parameter name, without copies.

    `zero` is DeepSpeed's optimizer. With working weights of 16 bits, `originals` has the initial
    fp32 values.
    """

    def __init__(self, zero: Any, model: Module, world: World, originals: Mapping[str, Tensor]):
        self._zero = zero
        self.optimizer: Optimizer = zero.optimizer
        """The torch optimizer, with the learning rates in its groups."""
        self._model = model
        self._world = world
        self._is_sharded = hasattr(zero, "fp32_partitioned_groups_flat")
        for name, start, flat, interval in self._intervals():
            if name in originals:
                # DeepSpeed copied its fp32 weights from rounded ones.
                master = flat.detach()[interval]
                master.copy_(originals[name].view(-1)[start : start + master.numel()])

    def gather(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        groups: Sequence[Mapping[str, Any]],
        loss_scale: Numbers,
    ) -> State:
        """The current state, with the given `groups`."""
        slots = {}
        with self._flat_parameters():
            for group in self.optimizer.param_groups:
                for flat in group["params"]:
                    slots[flat] = slot_names(self.optimizer, group, flat)
        pieces = []
        for name, shape in shapes.items():
            if 0 in shape:  # without elements it is no parameter under DeepSpeed
                pieces.append(Piece(WEIGHT, name, 0, torch.empty(0)))
        replica = (0, 1) if self._is_sharded else (self._world.rank, self._world.size)
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                start, part = self._working(parameter)
                if part.numel():
                    pieces.append(Piece(WEIGHT, name, start, part, replica))
        counts: dict[str, Tensor | float] = {}
        for name, start, flat, interval in self._intervals():
            state = self.optimizer.state[flat]
            pieces.append(Piece(WEIGHT, name, start, flat.detach()[interval]))
            for slot in slots[flat]:
                pieces.append(Piece(slot, name, start, state[slot][interval]))
            if "step" in state:
                counts[name] = state["step"]
        return State(
            shapes=shapes,
            pieces=pieces,
            buffers=read_buffers(stored_buffers(self._model)),
            steps=read_counts(counts),
            groups=groups,
            loss_scale=loss_scale,
        )

    def load_steps(self, groups: Sequence[Sequence[str]], steps: Numbers) -> None:
        """Set the step counts of the optimizer; `groups` are the names in each of its groups.

        DeepSpeed has one count per flat tensor of many parameters, which differ between ranks. So
        all parameters of a group need the same count, or 0: had DeepSpeed taken these steps, it
        would have updated unused ones with gradients of 0. All ranks raise EngineError otherwise.
        """
        with self._flat_parameters():
            for group, names in zip(self.optimizer.param_groups, groups, strict=True):
                # What never had a gradient has moments of zero: any count is right for it.
                counts = {name: steps[name] for name in names if steps[name]}
                for flat in group["params"]:
                    state = self.optimizer.state[flat]
                    if "step" in state:
                        state["step"].fill_(_common_count(counts))

    def refresh(self) -> None:
        """Copy the fp32 weights to the working weights. Collective."""
        if not self._is_sharded:
            self._zero.update_lp_params()
            return
        for index in range(len(self._zero.fp32_partitioned_groups_flat)):
            self._zero._reassign_or_swap_out_partitioned_parameters(index)
        # Small weights stay gathered between steps: drop the old ones.
        self._zero.parameter_offload.partition_all_parameters()
        persistent = self._zero.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)

    def check(self) -> None:
        """Check that the working weights equal the fp32 weights found here. Collective.

        Raises EngineError on every rank otherwise.
        """
        differing = torch.zeros(())
        for _, part, master in self.copies():
            # Deferred weights may be anything, also nan.
            if not torch.allclose(part, master.to(part), rtol=0, atol=0, equal_nan=True):
                differing += 1
        count = int(self._world.sum(differing))
        if count:
            raise EngineError(f"the fp32 copies of {count} parameters differ from their weights")

    def copies(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """The name of each trained parameter, its working weights, and the fp32 weights of them.

        The part that this rank updates.
        """
        parameters = dict(self._model.named_parameters())
        for name, start, flat, interval in self._intervals():
            working_start, working = self._working(parameters[name])
            master = flat.detach()[interval]
            yield name, working.narrow(0, start - working_start, master.numel()), master

    def _intervals(self) -> Iterator[tuple[str, int, Tensor, slice]]:
        """The non-empty intervals of parameters that this rank updates.

        Of each the name of the parameter and its elements before it; then the flat tensor of many
        parameters that has the fp32 weights, and the interval within it and within its slots.
        """
        zero = self._zero
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            try:
                if self._is_sharded:
                    group, offset, _ = zero.grad_position[zero.get_param_id(parameter)]
                    start, part = self._working(parameter)
                    size = part.numel()
                    flat = zero.fp32_partitioned_groups_flat[group]
                elif (mapping := parameter._hp_mapping) is None:  # type: ignore[attr-defined]
                    continue
                else:
                    start = mapping.lp_fragment_address.start
                    size = mapping.lp_fragment_address.numel
                    offset = mapping.hp_fragment_address.start
                    flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
            except (AttributeError, LookupError) as error:
                what = f"{type(error).__name__}: {error}"
                raise EngineError(f"where is parameter '{name}'? {what}") from error
            if size:
                yield name, start, flat, slice(offset, offset + size)

    def _working(self, parameter: Parameter) -> tuple[int, Tensor]:
        """The start of this rank's working weights in the tensor, and a view of them."""
        if not self._is_sharded:
            return 0, parameter.detach().view(-1)
        # Equal parts, the last ones padded.
        part = parameter.ds_tensor.data  # type: ignore[attr-defined]
        size = parameter.ds_numel  # type: ignore[attr-defined]
        start = min(part.numel() * self._world.rank, size)
        return start, part.narrow(0, 0, min(part.numel(), size - start))

    def interval_of(self, parameter: Any) -> tuple[int, Tensor]:
        """As `_working`, of any parameter."""
        return self._working(parameter)

    @contextmanager
    def _flat_parameters(self) -> Iterator[None]:
        """Put the flat tensors of stage 3 into the optimizer, as DeepSpeed does during a step.

        All slots exist then.
        """
        if self._is_sharded:
            self._zero._set_fp32_optimizer_param_groups()
        try:
            fill_slots(self.optimizer)
            yield
        finally:
            if self._is_sharded:
                self._zero._clear_fp32_optimizer_param_groups()


def _common_count(steps: Numbers) -> float:
    """The count that all share, or 0. Raises EngineError with the parameters that differ."""
    if not steps:
        return 0.0
    count = mode(steps.values())
    odd = [f"'{name}' ({number:g})" for name, number in steps.items() if number != count]
    if odd:
        more = f" and {len(odd) - _MAX_SHOWN} more" if len(odd) > _MAX_SHOWN else ""
        raise EngineError(
            "the zero engines have one step count per parameter group; most parameters of a group "
            f"have {count:g}, but not {', '.join(odd[:_MAX_SHOWN])}{more}; "
            "use local, ddp, oss or fsdp, which count each parameter"
        )
    return count
