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
from gearshift.training.optim.shards import shard

_A = 3.4445
_B = -4.7750
_C = 2.0315
_ITERATIONS = 5
_RMS = 0.2  # The root mean square of a step over the learning rate, as AdamW has it
_BATCH = 2**23  # Elements of equal matrices that are updated at once, or one matrix for each rank
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

    def __init__(self, groups: list[dict[str, Any]], lr: float, **adamw: Any):
        """`adamw`: options of torch's AdamW."""
        super().__init__(groups, {"lr": lr})
        others = [group for group in self.param_groups if "momentum" not in group]
        self._adamw = AdamW(others, lr=lr, **adamw) if others else None
        if self._adamw:
            self._adamw.state = self.state

    def slots(self, group: Facts) -> tuple[str, ...]:
        return ("momentum_buffer",) if "momentum" in group else ("exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        if self._adamw:
            self._adamw.param_groups = [g for g in self.param_groups if "momentum" not in g]
            self._adamw.step()
        done = 0
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"] if "momentum" in group else ():
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in by_shape.items():
                ranks = _ranks(matrices[0], self.shares_work)
                size = ranks.size
                count = size * max(1, _BATCH // (size * shape.numel()))
                for start in range(0, len(matrices), count):
                    batch = matrices[start : start + count]
                    # The next matrix is the next rank's, over all shapes: none has two more.
                    turns = [batch[(rank - done) % size :: size] for rank in range(size)]
                    in_turn = [matrix for turn in turns for matrix in turn]
                    self._update(in_turn, [len(turn) for turn in turns], ranks, group)
                    done += len(batch)

    def _update(
        self, matrices: Sequence[Tensor], counts: Sequence[int], ranks: _Ranks, group: Facts
    ) -> None:
        """Update matrices of one shape; rank n orthogonalizes the next `counts[n]` of them."""
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        averages = [shard(self.state[matrix]["momentum_buffer"]) for matrix in matrices]
        gradients = [shard(matrix.grad) for matrix in matrices]
        momentum = group["momentum"]
        weights = [shard(matrix) for matrix in matrices]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        height = matrices[0].shape[0]
        rows = -(-height // ranks.size) if ranks.hold_shards else height  # as in torch.chunk
        ahead = weights[0].new_zeros(len(matrices), rows, *weights[0].shape[1:], dtype=_DTYPE)
        for n in range(len(matrices)) if ranks.hold_shards else ranks.mine(counts):
            # Nesterov's momentum
            ahead[n, : len(weights[0])] = gradients[n].lerp(averages[n], momentum)
        steps = ranks.orthogonalize(ahead.to(ranks.device), counts, height).to(ahead.device)
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        scale = -group["lr"] * _RMS * sqrt(max(matrices[0].shape))
        torch._foreach_add_(weights, list(steps[:, : len(weights[0])]), alpha=scale)


@dataclass(frozen=True)
class _Ranks:
    """The ranks that divide the matrices; each has all of them, or a shard of each."""

    device: Any
    group: dist.ProcessGroup | None = None
    rank: int = 0
    size: int = 1
    hold_shards: bool = False

    def mine(self, counts: Sequence[int]) -> range:
        """Indices of the matrices that this rank orthogonalizes, of `counts` for each rank."""
        first = sum(counts[: self.rank])
        return range(first, first + counts[self.rank])

    def orthogonalize(self, held: Tensor, counts: Sequence[int], height: int) -> Tensor:
        """`held` [matrix, row, column] orthogonalized; matrices have `height` rows. Collective.

        They are in the order of the ranks that orthogonalize them. A shard has as many rows as that
        of the first rank.
        """
        if not self.hold_shards:
            mine = self.mine(counts)
            held[mine.start : mine.stop] = orthogonalized(held[mine.start : mine.stop])
            for rank, part in enumerate(held.split(list(counts)) if self.size > 1 else ()):
                if len(part):
                    dist.broadcast(part, rank, self.group)
            return held
        count = counts[self.rank]
        (rows, width) = held.shape[1:]
        shards = held.new_empty(self.size, count, rows, width)
        sizes = list(counts), [count] * self.size
        dist.all_to_all_single(shards.flatten(0, 1), held, sizes[1], sizes[0], self.group)
        full = shards.transpose(0, 1).flatten(1, 2)
        full[:, :height] = orthogonalized(full[:, :height])
        shards = full.unflatten(1, (self.size, rows)).transpose(0, 1).flatten(0, 1)
        dist.all_to_all_single(held, shards, sizes[0], sizes[1], self.group)
        return held


def _ranks(matrix: Tensor, shares_work: bool) -> _Ranks:
    """The ranks that divide matrices such as `matrix`."""
    if isinstance(matrix, DTensor):
        mesh = matrix.device_mesh
        axis = next(n for n, placement in enumerate(matrix.placements) if placement.is_shard())
        group = mesh.get_group(axis)
        size = dist.get_world_size(group)
        return _Ranks(mesh.device_type, group, dist.get_rank(group), size, hold_shards=size > 1)
    if shares_work and dist.is_initialized():
        return _Ranks(matrix.device, None, dist.get_rank(), dist.get_world_size())
    return _Ranks(matrix.device)


def orthogonalized(matrices: Tensor) -> Tensor:
    """`matrices` [matrix, row, column] in bf16 with singular values between about 0.7 and 1.2.

    By Newton-Schulz iteration, all in one batch.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    if not len(matrices):
        return matrices
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if is_tall else x
