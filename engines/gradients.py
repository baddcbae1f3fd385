"""Averaging, measuring and scaling the gradients of one update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import get_total_norm

from engines.base import World


def average(parameters: Iterable[Parameter], world: World) -> None:
    """Replace gradients by their mean over ranks. Collective.

    A rank that did not use a parameter counts as zero; one that no rank used keeps no gradient.
    """
    if world.size == 1:
        return
    parameters = list(parameters)
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
    reached = [p for p, u in zip(parameters, world.maximum(used).tolist(), strict=True) if u]
    for dtype in dict.fromkeys(p.dtype for p in reached):
        _average_flat([p for p in reached if p.dtype == dtype], world)


def _average_flat(parameters: Sequence[Parameter], world: World) -> None:
    pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([piece.reshape(-1) for piece in pieces])
    flat /= world.size
    dist.all_reduce(flat)
    for parameter, piece in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = piece.view(parameter.shape)


def global_norm(gradients: Sequence[Tensor], world: World, sharded: bool) -> Tensor:
    """The Euclidean norm over all gradients, a scalar on the world's device.

    `sharded`: each rank holds another part of them. Collective then.
    """
    norm = get_total_norm(gradients).to(torch.float32)
    if sharded and world.size > 1:
        norm = world.sum(norm.square()).sqrt()
    return norm.to(world.device)


def scale(gradients: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply `gradients` by the scalar `factor`, in place and without waiting for the device."""
    if gradients:
        torch._foreach_mul_(list(gradients), factor.to(gradients[0].device))


def clip_factor(norm: Tensor, clip_norm: float) -> Tensor:
    """What brings gradients of `norm` down to `clip_norm`; as torch.nn.utils.clip_grad_norm_."""
    return (clip_norm / (norm + 1e-6)).clamp(max=1.0)
