"""Input images of the two encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from torch import Tensor

from gearshift.models.doc_translation.config import Size

Views = tuple[ndarray, ndarray]
WHITE = 255
INK = 200
"""Pixels darker than this are ink. Source: Blecher et al., Nougat, 2023, its released code."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def without_margins(image: Image.Image) -> Image.Image:
    """Crop the margins of a page; a blank page is unchanged."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    low = grey.min()
    contrast = grey.max() - low
    if contrast == 0:
        return image
    # Stretch the contrast first, so that faded ink on grey paper counts as ink.
    stretched = (grey - low) / contrast * WHITE
    ink = Image.fromarray(stretched < INK)
    return image.crop(ink.getbbox())


def local_view(
    image: Image.Image,
    height: int,
    width: int,
) -> ndarray:
    """The page without margins at its aspect ratio, padded with white, uint8 [channel, h, w]."""
    inner = without_margins(image)
    scale = min(height / inner.height, width / inner.width)
    inner_height = max(1, round(inner.height * scale))
    inner_width = max(1, round(inner.width * scale))
    view = Image.new(image.mode, (width, height), "white")
    left = (width - inner_width) // 2
    above = (height - inner_height) // 2
    page = _scaled(inner, inner_width, inner_height)
    view.paste(page, (left, above))
    return _channels(view)


def _scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    # Pillow averages over all source pixels when it shrinks, which preserves thin strokes.
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _channels(image: Image.Image) -> ndarray:
    """uint8 [channel, height, width], of 1 or 3 channels."""
    pixels = np.atleast_3d(np.asarray(image))
    return pixels.transpose(2, 0, 1)


def views(image: Image.Image, size: Size) -> Views:
    """The inputs of the encoders, of an image in mode L or RGB.

    The whole page as a square, and it without margins.
    """
    side = size.whole.pixels
    height, width = size.local.pixels
    whole = _scaled(image, side, side)
    local = local_view(image, height, width)
    return _channels(whole), local


def batches(views: Sequence[Views]) -> tuple[Tensor, Tensor]:
    """`page_global` [batch, 3, pixels, pixels] and `page_local` [batch, 3, height, width], float32.

    (x/255 - 0.5) / 0.5, and normalized as for ImageNet.
    """
    whole, local = map(_colored, zip(*views, strict=True))
    page_global = whole / 127.5 - 1
    page_local = _by_imagenet(local / 255)
    return page_global, page_local


def _colored(pictures: Sequence[ndarray]) -> Tensor:
    """Pictures of 1 or 3 channels as a batch of 3, float32."""
    colored = []
    for pixels in pictures:
        shape = (3, *pixels.shape[1:])
        colored.append(np.broadcast_to(pixels, shape))
    batch = np.stack(colored)
    return torch.from_numpy(batch).float()


def blank(page_global: Tensor, page_local: Tensor) -> tuple[Tensor, Tensor]:
    """White pages in the shape of `batches`."""
    local = torch.ones_like(page_local)
    return torch.ones_like(page_global), _by_imagenet(local)


def _by_imagenet(share: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=share.device)
    deviation = torch.tensor(IMAGENET_DEVIATION, device=share.device)
    mean = mean.view(3, 1, 1)
    deviation = deviation.view(3, 1, 1)
    return (share - mean) / deviation
