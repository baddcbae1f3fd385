"""Linear layers in 8-bit floating point, for precision fp8."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

from gearshift.engines.base import Blocks, EngineError

_FORWARD = torch.float8_e4m3fn
_BACKWARD = torch.float8_e5m2
_MULTIPLE = 16  # Of elements that the kernels take along each axis
_SMALLEST = 1e-12


def linears_in_fp8(blocks: Blocks) -> None:
    """Let the linear layers of `blocks` multiply in 8 bits; names and weights stay.

    Layers with a number of features that is not a multiple of 16 stay as they are. Raises
    EngineError if that leaves none.
    """
    able = []
    for block in blocks:
        for module in block.modules():
            if isinstance(module, Linear) and _fits(module):
                able.append(module)
    if not able:
        raise EngineError(
            "precision 'fp8' is for linear layers of blocks whose features are multiples of "
            f"{_MULTIPLE}; this model has none; use bf16"
        )
    for layer in able:
        layer.forward = partial(_linear, layer)  # type: ignore[method-assign]


def _fits(layer: Linear) -> bool:
    return layer.in_features % _MULTIPLE == 0 and layer.out_features % _MULTIPLE == 0


def _linear(layer: Linear, inputs: Tensor) -> Tensor:
    flat = inputs.reshape(-1, layer.in_features).bfloat16()
    rows = flat.shape[0]
    padded = torch.nn.functional.pad(flat, (0, 0, 0, -rows % _MULTIPLE))
    product: Any = _Product.apply(padded, layer.weight.bfloat16())
    outputs = product[:rows].view(*inputs.shape[:-1], layer.out_features)
    if layer.bias is None:
        return outputs
    return outputs + layer.bias.bfloat16()


class _Product(torch.autograd.Function):
    """`inputs` [rows, in] times the transposed `weight` [out, in], both bf16: [rows, out] in bf16.

    One scale per tensor, from its present maximum; gradients have 2 bits of mantissa, other values
    3. Source: Micikevicius et al., FP8 Formats for Deep Learning, 2022.
    """

    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        left, left_scale = _quantized(inputs, _FORWARD)
        right, right_scale = _quantized(weight, _FORWARD)
        # Not the 8 bits of the weight: engines that shard weights free those that are gathered.
        context.save_for_backward(left, left_scale, weight)
        return _multiplied(left, left_scale, right.t(), right_scale, fast=True)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, inputs_scale, weight = context.saved_tensors
        output, output_scale = _quantized(gradient, _BACKWARD)
        right, right_scale = _quantized(weight, _FORWARD)
        to_inputs = _multiplied(output, output_scale, _by_column(right), right_scale)
        transposed = output.t().contiguous()
        to_weight = _multiplied(transposed, output_scale, _by_column(inputs), inputs_scale)
        return to_inputs, to_weight


def _quantized(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`tensor` in 8 bits, and the scale to multiply them by."""
    largest = torch.finfo(dtype).max
    factor = largest / tensor.abs().amax().float().clamp(min=_SMALLEST)
    scaled = (tensor.float() * factor).clamp(-largest, largest)
    return scaled.to(dtype), factor.reciprocal()


def _by_column(matrix: Tensor) -> Tensor:
    """`matrix` with the elements of a column side by side, as kernels take the second factor."""
    return matrix.t().contiguous().t()


def _multiplied(
    left: Tensor, left_scale: Tensor, right: Tensor, right_scale: Tensor, *, fast: bool = False
) -> Tensor:
    """The product in bf16; `fast` accumulates with fewer bits on some GPUs."""
    return torch._scaled_mm(
        left,
        right,
        left_scale,
        right_scale,
        out_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )
