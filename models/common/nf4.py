"""Frozen linear layers in 4 bits: NF4 with double quantization, computed by bitsandbytes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from gearshift.models.base import DataError
from gearshift.models.common.hugging_face import StoredTensor

_BLOCK = 64
_SCALES = 256
_TABLE = 256
"""Weights of a scale, scales of an fp32 scale, and values of an 8-bit code of a scale."""
_ops = torch.ops.bitsandbytes


class Nf4Linear(nn.Module):
    """A frozen linear layer with 4.127 bits a weight.

    64 weights share a scale of 8 bits, and 256 scales one of 32. Each pass, forward and backward,
    makes the weight in the dtype of the computation and drops it. The bits are buffers: every
    engine keeps them whole on each rank. Source: Dettmers et al., QLoRA, 2023.
    """

    def __init__(self, weight: Tensor, bias: nn.Parameter | None, table: Tensor) -> None:
        """`weight` [out, in] on the device that computes the bits, `table` the codes of scales."""
        super().__init__()
        self.shape = tuple(weight.shape)
        self.quantized_elements = weight.numel()
        self.bias = bias
        codes, largest = _ops.quantize_4bit(weight, _BLOCK, "nf4", torch.uint8)
        mean = largest.mean()
        table = table.to(weight.device)
        scales, of_scales = _ops.quantize_blockwise(largest - mean, table, _SCALES)
        # As bytes: a cast of the whole model to another dtype leaves them alone.
        constants = torch.cat([table, mean[None], of_scales]).view(torch.uint8)
        bits = {"codes": codes, "scales": scales, "constants": constants}
        for name, tensor in bits.items():
            self.register_buffer(name, tensor.cpu(), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """`inputs` [..., in]; returns [..., out]."""
        output: Tensor = _Product.apply(inputs, self.shape, *self.buffers())
        if self.bias is None:
            return output
        return output + self.bias.to(output.dtype)


def weight_of(shape: Any, dtype: torch.dtype, *bits: Tensor) -> Tensor:
    """The weight that `bits`, the buffers of a layer, stand for."""
    codes, scales, constants = bits
    numbers = constants.view(torch.float32)
    table, mean, of_scales = numbers.tensor_split([_TABLE, _TABLE + 1])
    largest = _ops.dequantize_blockwise(
        scales,
        of_scales,
        table,
        _SCALES,
        torch.float32,
    )
    largest += mean
    weight: Tensor = _ops.dequantize_4bit(
        codes,
        largest,
        _BLOCK,
        "nf4",
        shape,
        dtype,
    )
    return weight


class _Product(torch.autograd.Function):
    """Inputs times the transposed weight; the bits are kept for the backward pass."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, shape: Any, *bits: Tensor) -> Tensor:
        context.save_for_backward(*bits)
        context.shape = shape
        kind = inputs.device.type
        dtype = inputs.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        return nn.functional.linear(inputs, weight_of(shape, dtype, *bits))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight = weight_of(context.shape, gradient.dtype, *context.saved_tensors)
        return gradient @ weight, None, None, None, None


class Quantizer:
    """Puts the frozen linear layers of a model into 4 bits."""

    def __init__(self, device: torch.device) -> None:
        """Import bitsandbytes. Raises DataError if it is missing, or does not know `device`."""
        bitsandbytes = library()
        from bitsandbytes.functional import create_dynamic_map

        if device.type not in bitsandbytes.supported_torch_devices:
            raise DataError(
                f"bitsandbytes has no 4-bit layers for the device {device.type}",
                where="model.quantize",
                allowed=f"the devices {', '.join(sorted(bitsandbytes.supported_torch_devices))}",
                fix="--set model.quantize=null",
            )
        self._device = device
        self._table = create_dynamic_map()  # now: it reads values, which fake tensors lack

    def quantize(self, inner: Any, unread: list[tuple[Tensor, StoredTensor]]) -> None:
        """Read the weights that are `unread`, and replace the frozen linear layers of `inner`.

        One by one, each in memory in fp32 only until it has 4 bits. The output layer and those of
        other kinds stay. Disk access. Raises DataError if there is no such layer.
        """
        layers = {layer.weight: name for name, layer in _linears(inner).items()}
        if not layers:
            raise DataError(
                "model.quantize nf4 is for linear layers; the model of model.pretrained has none",
                where="model.quantize",
                allowed="null",
                fix="--set model.quantize=null",
            )
        while unread:
            tensor, source = unread.pop()
            source.read_into(tensor)
            if tensor in layers:
                self._replace(inner, layers.pop(tensor))
        for name in layers.values():
            self._replace(inner, name)

    def round(self, inner: Any) -> None:
        """Round the weights of a model without adapters as `quantize` does, and keep its layers."""
        for layer in _linears(inner.requires_grad_(False)).values():
            bits = self._in_4_bits(layer)
            layer.weight.data = weight_of(bits.shape, layer.weight.dtype, *bits.buffers())

    def _replace(self, inner: Any, name: str) -> None:
        layer = self._in_4_bits(inner.get_submodule(name))
        parent, _, last = name.rpartition(".")
        setattr(inner.get_submodule(parent), last, layer)

    def _in_4_bits(self, layer: Any) -> Nf4Linear:
        weight = layer.weight.detach().to(self._device)
        return Nf4Linear(weight, layer.bias, self._table)


def library() -> Any:
    """The package bitsandbytes, which registers its operators. Raises DataError if missing."""
    try:
        return import_module("bitsandbytes")
    except ImportError:
        raise DataError(
            "model.quantize nf4 needs the package bitsandbytes, which is not installed",
            where="model.quantize",
            allowed="null, or nf4 where bitsandbytes is installed",
            fix="pip install 'bitsandbytes>=0.50'",
        ) from None


def _linears(inner: Any) -> dict[str, Any]:
    """The frozen linear layers of a model of transformers, but for its output layer, by name."""
    head = inner.get_output_embeddings()
    layers = {}
    for name, module in inner.named_modules():
        is_linear = type(module) is nn.Linear
        if is_linear and module is not head and not module.weight.requires_grad:
            layers[name] = module
    return layers
