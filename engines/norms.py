"""Normalization layers that use weights of 16 bits in fp32."""

from __future__ import annotations

from functools import cache

from torch import Tensor
from torch.nn import GroupNorm, LayerNorm, Module
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, GroupNorm, LayerNorm)


def norms_in_fp32(model: Module) -> None:
    """Let normalization layers use their weights in fp32, as where all weights are fp32.

    Running statistics are fp32, and their kernels refuse other mixtures of dtypes; RMSNorm accepts
    any. Names and hooks stay.
    """
    for module in model.modules():
        if isinstance(module, _NORMS):
            module.__class__ = _with_fp32_weights(type(module))  # type: ignore


@cache
def _with_fp32_weights(kind: type[Module]) -> type[Module]:
    def wide(name: str) -> property:
        def read(module: Module) -> Tensor | None:
            value = module._parameters[name]
            # FSDP takes a shard that it reads here for its own; a copy would get no later values.
            return value if value is None or hasattr(value, "to_local") else value.float()

        return property(read)

    return type(kind.__name__, (kind,), {"weight": wide("weight"), "bias": wide("bias")})
