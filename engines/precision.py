"""Mixed precision: autocast, TF32 and loss scaling, the same under every engine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.utils._pytree import tree_map

from gearshift.engines.base import EngineError, Precision

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16}
"""The precisions that compute in 16 bits; fp8 has linear layers in 8 bits beside."""
_CAPABILITIES = {
    "tf32": (8, 0),
    "bf16": (8, 0),
    "fp8": (8, 9),
}  # The oldest NVIDIA GPUs with a format


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raise EngineError if `device` does not support `precision`."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        needed = _CAPABILITIES.get(precision)
        if needed and capability < needed and not torch.version.hip:
            allowed = [p for p, least in _CAPABILITIES.items() if capability >= least]
            raise EngineError(
                f"precision '{precision}' needs a GPU of compute capability "
                f"{needed[0]}.{needed[1]} or newer; {torch.cuda.get_device_name(device)} has "
                f"{capability[0]}.{capability[1]}; allowed: {', '.join(['fp32', 'fp16', *allowed])}"
            )
    elif precision == "tf32":
        raise EngineError(
            f"precision 'tf32' is a format of NVIDIA GPUs; allowed on {device.type}: "
            "fp32, bf16, fp16"
        )


def set_matmul_precision(precision: Precision) -> Callable[[], None]:
    """Let matrix products and convolutions of fp32 tensors use TF32 for tf32.

    Otherwise torch's defaults stay: TF32 in the convolutions of cuDNN, not in matrix products. Sets
    flags of the process; returns a function that restores them.
    """
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32

    def restore() -> None:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions

    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    return restore


def autocast_inside(model: Module, precision: Precision, device: torch.device) -> None:
    """Run the forward pass of `model` under autocast for bf16 and fp16, with outputs in fp32.

    Weights, gradients and optimizer state stay as they are. Only the instance's `forward` is
    replaced: no module is added, no name changes.
    """
    dtype = DTYPES.get(precision)
    if dtype is not None:
        # A partial of bound methods, not a closure: a deep copy of the model then calls itself.
        model.forward = partial(_autocast, model.forward, device.type, dtype)


def _autocast(
    forward: Callable[..., Any], kind: str, dtype: torch.dtype, *args: Any, **kwargs: Any
) -> Any:
    with torch.autocast(kind, dtype):
        output = forward(*args, **kwargs)
    return tree_map(partial(_widen, dtype), output)


def _widen(dtype: torch.dtype, value: Any) -> Any:
    # Losses are computed outside: a cross-entropy of bf16 logits would be computed in bf16.
    if isinstance(value, Tensor) and value.dtype == dtype:
        return value.float()
    return value
