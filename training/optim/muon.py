"""Muon: orthogonalized momentum for the matrices of hidden layers, AdamW for other parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from gearshift.training.callbacks.base import Facts
from gearshift.training.optim.shards import Groups, shard

_A = 3.4445
_B = -4.7750
_C = 2.0315
_ITERATIONS = 5
_RMS = 0.2  # The root mean square of a step over the learning rate, as AdamW has it
_BATCH = 2**23  # Elements of equal matrices that are updated at once, or one for each rank
_DTYPE = torch.bfloat16


class Muon(Optimizer):
    """Muon for groups with the option `momentum`, AdamW for the others. Collective.

    The step of a matrix is its momentum with singular values near 1. `lr` and `weight_decay` mean
    the same for both. One rank orthogonalizes a matrix, from the shards of all if it is a DTensor,
    and sends the step to the others in bf16. Sources: Jordan et al., Muon, 2024; Liu et al., Muon
    is Scalable for LLM Training, 2025, section 2.2.
    """

    shares_work = True
    """As `SharesWork.shares_work`."""

    def __init__(self, groups: Groups, lr: float, **adamw: Any):
        """`adamw`: options of torch's AdamW."""
        super().__init__(groups, {"lr": lr})
        self._adamw: AdamW | None = None
        others = self._others()
        if others:
            self._adamw = AdamW(others, lr=lr, **adamw)
            self._adamw.state = self.state

    def _others(self) -> Groups:
        """The groups that AdamW updates."""
        return [group for group in self.param_groups if "momentum" not in group]

    def slots(self, group: Facts) -> tuple[str, ...]:
        return ("momentum_buffer",) if "momentum" in group else ("exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if self._adamw:
            self._adamw.param_groups = self._others()
            self._adamw.step()

        for group in self.param_groups:
            if "momentum" not in group:
                continue
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in by_shape.items():
                ranks = _ranks(matrices[0], self.shares_work)
                at_once = ranks.size * max(1, _BATCH // (ranks.size * shape.numel()))
                for start in range(0, len(matrices), at_once):
                    self._update(matrices[start : start + at_once], ranks, group)

    def _update(self, matrices: Sequence[Tensor], ranks: _Ranks, group: Facts) -> None:
        """Update matrices of one shape; each rank orthogonalizes as many of them."""
        averages = []
        for matrix in matrices:
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix)
            averages.append(shard(state["momentum_buffer"]))
        gradients = [shard(matrix.grad) for matrix in matrices]
        weights = [shard(matrix) for matrix in matrices]
        momentum = group["momentum"]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)

        height = matrices[0].shape[0]
        length, *columns = weights[0].shape
        rows = -(-height // ranks.size) if ranks.hold_shards else height  # as in torch.chunk
        # As many for each rank: zeros follow the last matrix.
        count = -(-len(matrices) // ranks.size) * ranks.size
        ahead = weights[0].new_zeros(count, rows, *columns, dtype=_DTYPE)
        for n, gradient in enumerate(gradients):
            # Nesterov's momentum
            ahead[n, :length] = gradient.lerp(averages[n], momentum)
        steps = ranks.orthogonalize(ahead.to(ranks.device), height).to(ahead.device)

        lr = group["lr"]
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        scale = -lr * _RMS * sqrt(max(matrices[0].shape))
        torch._foreach_add_(weights, list(steps[: len(matrices), :length]), alpha=scale)


@dataclass(frozen=True)
class _Ranks:
    """The ranks that divide the matrices; each has all of them, or a shard of each."""

    device: Any
    group: dist.ProcessGroup | None = None
    size: int = 1
    hold_shards: bool = False

    def orthogonalize(self, ahead: Tensor, height: int) -> Tensor:
        """`ahead` [matrix, row, column] orthogonalized; matrices have `height` rows. Collective.

        They are in the order of the ranks that orthogonalize them. A shard has as many rows as that
        of the first rank.
        """
        if self.size == 1:
            return orthogonalized(ahead)
        parts = ahead.unflatten(0, (self.size, -1))
        if not self.hold_shards:
            part = orthogonalized(parts[dist.get_rank()])
            dist.all_gather_into_tensor(ahead, part.contiguous())
            return ahead

        shards = torch.empty_like(parts)
        dist.all_to_all_single(shards, parts, group=self.group)
        full = shards.transpose(0, 1).flatten(1, 2)
        full[:, :height] = orthogonalized(full[:, :height])
        shards = full.unflatten(1, (self.size, -1)).transpose(0, 1).contiguous()
        dist.all_to_all_single(parts, shards, group=self.group)
        return ahead


def _ranks(matrix: Tensor, shares_work: bool) -> _Ranks:
    """The ranks that divide matrices such as `matrix`."""
    if isinstance(matrix, DTensor):
        mesh = matrix.device_mesh
        are_shards = [placement.is_shard() for placement in matrix.placements]
        group = mesh.get_group(are_shards.index(True))
        return _Ranks(
            device=mesh.device_type,
            group=group,
            size=dist.get_world_size(group),
            hold_shards=True,
        )
    if shares_work and dist.is_initialized():
        return _Ranks(matrix.device, size=dist.get_world_size())
    return _Ranks(matrix.device)


def orthogonalized(matrices: Tensor) -> Tensor:
    """`matrices` [matrix, row, column] in bf16 with singular values between about 0.7 and 1.2.

    By Newton-Schulz iteration, all in one batch.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, polynomial, x, beta=_A)
    return x.mT if is_tall else x
