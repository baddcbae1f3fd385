"""The network: convolutions down, transposed convolutions back up, and the loss at the end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.event_seg.config import BINS, CLASSES, Size

IGNORE = -100
"""The label of a pixel that does not count."""


class Norm(nn.BatchNorm2d):
    """Batch normalisation by float32 scales and shifts, as its statistics are, also of weights that
    are kept in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, channel, height, width]."""
        assert self.running_mean is not None and self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        affine = self.weight.float(), self.bias.float()
        return F.batch_norm(x, *statistics, *affine, self.training, self.momentum or 0.0, self.eps)


class Layer(nn.Sequential):
    """A convolution with batch normalisation and ReLU; either a 3×3 one or a transposed 4×4 one."""

    def __init__(self, ins: int, outs: int, stride: int, *, up: bool) -> None:
        """`up` doubles the resolution, otherwise `stride` divides it."""
        super().__init__(
            _up(ins, outs) if up else nn.Conv2d(ins, outs, 3, stride, 1),
            Norm(outs),
            nn.ReLU(),
        )


def _up(ins: int, outs: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(ins, outs, 4, stride=2, padding=1)


class Network(nn.Module):
    """Voxel grids to two maps of the same height and width.

    Weights are drawn as He et al., Delving Deep into Rectifiers, 2015, biases are 0. Statistics of
    batch normalisation are those of a rank's micro-batch.
    """

    class_weights: Tensor
    recipe: Tensor

    def __init__(self, size: Size, foreground_weight: float, recipe: tuple[int, ...]) -> None:
        """`foreground_weight` is that of class 1 in the loss; `recipe` tells how labels came to be.

        Both are buffers, so that a checkpoint tells them.
        """
        super().__init__()
        first = 1 if size.is_deep else 2
        ins, back = (BINS, *size.widths), size.widths[::-1]
        self.down = nn.ModuleList(
            Layer(a, b, first if i == 0 else 2, up=False)
            for i, (a, b) in enumerate(zip(ins[:-1], size.widths, strict=True))
        )
        self.up = nn.ModuleList(Layer(a, b, 2, up=True) for a, b in pairwise(back))
        self.head = nn.Conv2d(back[-1], CLASSES, 1) if size.is_deep else _up(back[-1], CLASSES)
        self.register_buffer("class_weights", torch.tensor([1.0, foreground_weight]))
        self.register_buffer("recipe", torch.tensor(recipe))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                _draw(module, "linear" if module is self.head else "relu")

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers in order."""
        return [*self.down, *self.up, self.head]

    def forward(
        self,
        events: Tensor,
        labels: Tensor | None = None,
        hidden: Tensor | None = None,
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps [batch, 2, height, width] of `events` [batch, bin, height, width].

        With `labels` the loss, summed over pixels: cross-entropy where they are classes [batch,
        height, width], -100 to leave a pixel out. With `hidden`, bool [batch, height, width], its
        pixels are not seen, `labels` are two maps, and the loss is their squared error there, its
        mean over both. With `measure` the loss and the maps, float32.
        """
        if hidden is not None:
            events = events * ~hidden[:, None]
        x = events
        for block in self.blocks:
            x = block(x)
        maps = x[..., : events.shape[-2], : events.shape[-1]].float()
        if labels is None:
            return maps
        if hidden is None:
            weight = self.class_weights.float()
            loss = F.cross_entropy(
                maps, labels, weight=weight, ignore_index=IGNORE, reduction="sum"
            )
        else:
            loss = ((maps - labels).square().mean(1) * hidden).sum()
        return (loss, maps) if measure else loss


def _draw(layer: nn.Conv2d | nn.ConvTranspose2d, gain: str) -> None:
    # The weight of a transposed convolution is [in, out, ...]: what flows in is torch's fan_out.
    mode = "fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in"
    nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity=gain)  # type: ignore[arg-type]
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def flops_per_sample(size: Size, height: int, width: int) -> float:
    """Floating point operations of forward and backward for one sample of that shape.

    A multiplication and an addition count two, backward counts twice the forward; normalisation
    and activations are left out.
    """
    return 6.0 * sum(taps * area for taps, area in _work(size, height, width))


def _work(size: Size, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Of each convolution: weights that meet each place, and places."""
    ins = BINS
    for i, outs in enumerate(size.widths):
        if i or not size.is_deep:
            height, width = -(-height // 2), -(-width // 2)
        yield 9 * ins * outs, height * width
        ins = outs
    back = size.widths[-2::-1] if size.is_deep else (*size.widths[-2::-1], CLASSES)
    for outs in back:
        yield 16 * ins * outs, height * width  # each pixel that comes in meets every weight
        height, width, ins = 2 * height, 2 * width, outs
    if size.is_deep:
        yield ins * CLASSES, height * width
