"""Network: convolutional encoder, transposed convolutional decoder and loss."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gearshift.models.common.layers import HasFrozenParts
from gearshift.models.event_seg.config import BINS, CLASSES, Size

IGNORE = -100
"""Label of a pixel excluded from the loss."""


class Norm(nn.BatchNorm2d):
    """Batch normalization with float32 scales and shifts, also for weights in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        """`x` [batch, channel, height, width]."""
        assert self.running_mean is not None and self.num_batches_tracked is not None
        if self.training:
            self.num_batches_tracked.add_(1)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight.float(),
            self.bias.float(),
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


class _Convolution(nn.Conv2d):
    """A convolution with its weight stored as [out, height, width, in].

    So it is flat for every engine, and in the memory format of the images without a conversion.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.permute(0, 3, 1, 2), self.bias)


class _TransposedConvolution(nn.ConvTranspose2d):
    """As _Convolution, with the weight stored as [in, height, width, out]; doubles the sides."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.conv_transpose2d(
            x, self.weight.permute(0, 3, 1, 2), self.bias, stride=2, padding=1
        )


def _up(
    ins: int,
    outs: int,
) -> nn.ConvTranspose2d:
    return _TransposedConvolution(ins, outs, 4, stride=2, padding=1)


class ConvolutionLayer(nn.Sequential):
    """3×3 convolution, or transposed 4×4 convolution, with batch normalization and ReLU."""

    def __init__(
        self,
        ins: int,
        outs: int,
        stride: int,
        *,
        up: bool,
    ) -> None:
        """`up` doubles the resolution; otherwise `stride` divides it."""
        convolution = _up(ins, outs) if up else _Convolution(ins, outs, 3, stride, 1)
        super().__init__(convolution, Norm(outs), nn.ReLU())


class SegmentationNetwork(HasFrozenParts):
    """Maps voxel grids to two maps of the same height and width.

    Weights are initialized as in He et al., Delving Deep into Rectifiers, 2015; biases are 0.
    Batch normalization uses the statistics of a rank's micro-batch.
    """

    class_weights: Tensor
    recipe: Tensor

    def __init__(
        self,
        size: Size,
        foreground_weight: float,
        recipe: tuple[int, ...],
    ) -> None:
        """`foreground_weight`: weight of class 1 in the loss; `recipe`: parameters of the labels.

        Both are buffers, so that checkpoints contain them.
        """
        super().__init__()
        self.down = nn.ModuleList()
        stride = 1 if size.is_deep else 2
        for ins, outs in pairwise((BINS, *size.widths)):
            self.down.append(ConvolutionLayer(ins, outs, stride, up=False))
            stride = 2
        self.up = nn.ModuleList()
        for ins, outs in pairwise(size.widths[::-1]):
            self.up.append(ConvolutionLayer(ins, outs, 2, up=True))
        last = size.widths[0]
        self.head = _Convolution(last, CLASSES, 1) if size.is_deep else _up(last, CLASSES)
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
        measure: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Maps [batch, 2, height, width] of `events` [batch, bin, height, width].

        With `labels` the loss, summed over pixels: cross-entropy for classes [batch, height,
        width], with -100 to exclude a pixel. With `measure`: loss and maps, float32.
        """
        x = events
        for block in self.blocks:
            x = block(x)
        height, width = events.shape[-2:]
        maps = x[..., :height, :width].float()  # layers round odd sides up
        if labels is None:
            return maps
        # Summed apart: torch's own sum over images is not deterministic on CUDA.
        loss = F.cross_entropy(
            maps,
            labels,
            self.class_weights.float(),
            ignore_index=IGNORE,
            reduction="none",
        ).sum()
        if measure:
            return (loss, maps)
        return loss


def _draw_weights(
    model: nn.Module,
    head: nn.Module,
) -> None:
    """Draw the weights of all convolutions, then store them by channel; `head` has no ReLU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            # The weight of a transposed one is [in, out, ...]: its fan-in is torch's fan_out.
            is_up = isinstance(module, nn.ConvTranspose2d)
            nn.init.kaiming_normal_(
                module.weight,
                mode="fan_out" if is_up else "fan_in",
                nonlinearity="linear" if module is head else "relu",
            )
            nn.init.zeros_(module.bias)
            module.weight = nn.Parameter(module.weight.detach().permute(0, 2, 3, 1).contiguous())
