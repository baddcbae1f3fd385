"""Muon: orthogonalized momentum for the matrices of hidden layers, AdamW for other parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate
from torch.optim import AdamW, Optimizer

_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_RMS = 0.2
"""The root mean square of a step over the learning rate, as AdamW has it."""


class Muon(Optimizer):
    """Muon for groups with the option `momentum`, AdamW for the others.

    The step of a matrix is its momentum with singular values near 1. `lr` and `weight_decay` mean
    the same for both. A sharded matrix (DTensor) is gathered for its step, in bf16. Sources: Jordan
    et al., Muon, 2024; Liu et al., Muon is Scalable for LLM Training, 2025, section 2.2.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, **adamw: Any):
        """`adamw`: options of torch's AdamW."""
        super().__init__(groups, {"lr": lr})
        others = [group for group in self.param_groups if "momentum" not in group]
        self._adamw = AdamW(others, lr=lr, **adamw) if others else None
        if self._adamw:
            self._adamw.state = self.state

    def slots(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """As `HasSlots.slots`."""
        return ("momentum_buffer",) if "momentum" in group else ("exp_avg", "exp_avg_sq")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        if self._adamw:
            self._adamw.param_groups = [g for g in self.param_groups if "momentum" not in g]
            self._adamw.step()
        for group in self.param_groups:
            if "momentum" in group:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, **group)

    def _update(
        self, parameter: Tensor, *, lr: float, weight_decay: float, momentum: float, **_: Any
    ) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        average = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(average, momentum)  # Nesterov's
        step = _part_of(orthogonalized(_full(ahead.bfloat16())), parameter)
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(step, alpha=-lr * _RMS * sqrt(max(parameter.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """`matrix` (bf16) with singular values between about 0.7 and 1.2: Newton-Schulz iteration."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if is_tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if is_tall else x


def _full(tensor: Tensor) -> Tensor:
    """The full tensor of a DTensor, on the device of its mesh. Collective."""
    if not isinstance(tensor, DTensor):
        return tensor
    mesh = tensor.device_mesh
    local = tensor.to_local().to(mesh.device_type)  # offloaded shards are on the CPU
    placed = DTensor.from_local(
        local, mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
    return placed.full_tensor()


def _part_of(full: Tensor, parameter: Tensor) -> Tensor:
    """`full`, sharded as `parameter` is; every rank has all of it."""
    if not isinstance(parameter, DTensor):
        return full
    mesh, placements = parameter.device_mesh, parameter.placements
    everywhere = DTensor.from_local(full, mesh, [Replicate()] * mesh.ndim, run_check=False)
    local = everywhere.redistribute(placements=placements).to_local().to(parameter.device)
    return DTensor.from_local(
        local, mesh, placements, run_check=False, shape=full.shape, stride=full.stride()
    )
