"""Network: convolutional encoder, transposed convolutional decoder and loss."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.common.layers import HasFrozenParts
from models.event_seg.config import BINS, CLASSES, Size

IGNORE = -100
"""Label of a pixel excluded from the loss."""


class Norm(nn.BatchNorm2d):
    """Batch normalization with float32 scales and shifts, also for weights in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, channel, height, width]."""
        assert self.running_mean is not None and self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        affine = self.weight.float(), self.bias.float()
        return F.batch_norm(x, *statistics, *affine, self.training, self.momentum or 0.0, self.eps)


class _Convolution(nn.Conv2d):
    """A convolution with its weight stored as [out, height, width, in].

    So it is flat for every engine, and in the memory format of the images without a conversion.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.permute(0, 3, 1, 2), self.bias)


class _TransposedConvolution(nn.ConvTranspose2d):
    """As _Convolution, with the weight stored as [in, height, width, out]; doubles the sides."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        weight = self.weight.permute(0, 3, 1, 2)
        return F.conv_transpose2d(x, weight, self.bias, stride=2, padding=1)


def _up(ins: int, outs: int) -> nn.ConvTranspose2d:
    return _TransposedConvolution(ins, outs, 4, stride=2, padding=1)


class ConvolutionLayer(nn.Sequential):
    """3×3 convolution, or transposed 4×4 convolution, with batch normalization and ReLU."""

    def __init__(self, ins: int, outs: int, stride: int, *, up: bool) -> None:
        """`up` doubles the resolution; otherwise `stride` divides it."""
        super().__init__(
            _up(ins, outs) if up else _Convolution(ins, outs, 3, stride, 1), Norm(outs), nn.ReLU()
        )


def build_encoder(size: Size) -> nn.ModuleList:
    """The convolutions on the way down."""
    first, ins = 1 if size.is_deep else 2, (BINS, *size.widths)
    return nn.ModuleList(
        ConvolutionLayer(a, b, first if i == 0 else 2, up=False)
        for i, (a, b) in enumerate(zip(ins[:-1], size.widths, strict=True))
    )


class SegmentationNetwork(HasFrozenParts):
    """Maps voxel grids to two maps of the same height and width.

    Weights are initialized as in He et al., Delving Deep into Rectifiers, 2015; biases are 0.
    Batch normalization uses the statistics of a rank's micro-batch.
    """

    class_weights: Tensor
    recipe: Tensor

    def __init__(self, size: Size, foreground_weight: float, recipe: tuple[int, ...]) -> None:
        """`foreground_weight`: weight of class 1 in the loss; `recipe`: parameters of the labels.

        Both are buffers, so that checkpoints contain them.
        """
        super().__init__()
        back = size.widths[::-1]
        self.down = build_encoder(size)
        self.up = nn.ModuleList(ConvolutionLayer(a, b, 2, up=True) for a, b in pairwise(back))
        self.head = _Convolution(back[-1], CLASSES, 1) if size.is_deep else _up(back[-1], CLASSES)
        self.register_buffer("class_weights", torch.tensor([1.0, foreground_weight]))
        self.register_buffer("recipe", torch.tensor(recipe))
        _draw_weights(self, self.head)

    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.down, *self.up, self.head]

    def forward(
        self,
        events: Tensor,
        labels: Tensor | None = None,
        hidden: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps [batch, 2, height, width] of `events` [batch, bin, height, width].

        With `labels` the loss, summed over pixels: cross-entropy for classes [batch, height,
        width], with -100 to exclude a pixel. With `hidden`, bool [batch, height, width], the input
        is masked at these pixels, `labels` are two maps, and the loss is the squared error there,
        averaged over both maps. With `measure`: loss and maps, float32.
        """
        x = events if hidden is None else events * ~hidden[:, None]
        for block in self.blocks:
            x = block(x)
        maps = _cropped(x, events)
        if labels is None:
            return maps
        if hidden is None:
            weight = self.class_weights.float()
            # Summed apart: torch's own sum over images is not deterministic on CUDA.
            each = F.cross_entropy(maps, labels, weight, ignore_index=IGNORE, reduction="none")
            loss = each.sum()
        else:
            loss = _masked_loss(maps, labels, hidden)
        return (loss, maps) if measure else loss


class MaskedEncoder(nn.Module):
    """The encoder of Network, and a head that predicts hidden pixels at the lowest resolution."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.down = build_encoder(size)
        self.scale = 2 ** (len(size.widths) - size.is_deep)
        self.head = _Convolution(size.widths[-1], CLASSES * self.scale**2, 1)
        _draw_weights(self, self.head)

    @property
    def blocks(self) -> list[nn.Module]:
        return [*self.down, self.head]

    def forward(
        self, events: Tensor, mass: Tensor, hidden: Tensor, measure: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """As Network.forward with `hidden`."""
        x = events * ~hidden[:, None]
        for block in self.blocks:
            x = block(x)
        maps = _cropped(F.pixel_shuffle(x, self.scale), events)
        loss = _masked_loss(maps, mass, hidden)
        return (loss, maps) if measure else loss


def _cropped(x: Tensor, events: Tensor) -> Tensor:
    """`x` in float32, with the height and width of `events`: layers round odd ones up."""
    return x[..., : events.shape[-2], : events.shape[-1]].float()


def _masked_loss(maps: Tensor, mass: Tensor, hidden: Tensor) -> Tensor:
    """Squared errors at hidden pixels, averaged over both maps, summed over pixels."""
    return ((maps - mass).square().mean(1) * hidden).sum()


def _draw_weights(model: nn.Module, head: nn.Module) -> None:
    """Draw the weights of all convolutions, then store them by channel; `head` has no ReLU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            # The weight of a transposed one is [in, out, ...]: its fan-in is torch's fan_out.
            is_up = isinstance(module, nn.ConvTranspose2d)
            gain: Any = "linear" if module is head else "relu"
            mode: Any = "fan_out" if is_up else "fan_in"
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity=gain)
            nn.init.zeros_(module.bias)
            stored = module.weight.detach().permute(0, 2, 3, 1).contiguous()
            module.weight = nn.Parameter(stored)


def flops_per_sample(
    size: Size, height: int, width: int, stage: str = "whole", is_frozen: bool = False
) -> float:
    """Floating point operations of forward and backward for one sample of this shape.

    A multiplication and an addition count as two, backward as twice forward; normalization and
    activations are excluded. Of stage `encoder` those of MaskedEncoder; `is_frozen`: the encoder
    has no backward.
    """
    layers = list(_work(size, height, width))
    depth = len(size.widths)
    if stage == "encoder":
        _, area = layers[depth - 1]
        scale = 2 ** (depth - size.is_deep)
        layers[depth:] = [(size.widths[-1] * CLASSES * scale**2, area)]
    return sum(
        (2.0 if is_frozen and i < depth else 6.0) * taps * area for i, (taps, area) in enumerate(layers)
    )


def _work(size: Size, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Per convolution: number of weights per position, and number of positions."""
    ins = BINS
    for i, outs in enumerate(size.widths):
        if i or not size.is_deep:
            height, width = -(-height // 2), -(-width // 2)
        yield 9 * ins * outs, height * width
        ins = outs
    back = size.widths[-2::-1] if size.is_deep else (*size.widths[-2::-1], CLASSES)
    for outs in back:
        yield 16 * ins * outs, height * width  # every input pixel is multiplied by every weight
        height, width, ins = 2 * height, 2 * width, outs
    if size.is_deep:
        yield ins * CLASSES, height * width
