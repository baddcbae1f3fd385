"""Input images of the two encoders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gearshift.models.doc_translation.config import Size

Views = tuple[np.ndarray, np.ndarray]
WHITE = 255
INK = 200
"""Pixels darker than this are ink. Source: Blecher et al., Nougat, 2023, its released code."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def without_margins(image: Image.Image) -> Image.Image:
    """Crop the margins of a page; a blank page is unchanged."""
    grey = np.asarray(image.convert("L"))
    low = int(grey.min())
    high = int(grey.max())
    if low == high:
        return image
    # Stretch the contrast first, so that faded ink on grey paper counts as ink.
    dark = (grey.astype(np.float32) - low) / (high - low) * WHITE < INK
    rows = np.flatnonzero(dark.any(axis=1))
    columns = np.flatnonzero(dark.any(axis=0))
    return image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def local_view(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The page without margins at its aspect ratio, padded with white, uint8 [channel, h, w]."""
    inner = without_margins(image)
    scale = min(height / inner.height, width / inner.width)
    pixels = _scaled(inner, *(max(1, round(side * scale)) for side in inner.size))
    page = np.full((pixels.shape[0], height, width), WHITE, dtype=np.uint8)
    top = (height - pixels.shape[1]) // 2
    left = (width - pixels.shape[2]) // 2
    page[:, top : top + pixels.shape[1], left : left + pixels.shape[2]] = pixels
    return page


def _scaled(image: Image.Image, width: int, height: int) -> np.ndarray:
    """uint8 [channel, height, width], of 1 or 3 channels."""
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    if image.size != (width, height):
        # Pillow averages over all source pixels when it shrinks, which preserves thin strokes.
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def views(image: Image.Image, size: Size) -> Views:
    """The inputs of the encoders: the whole page as a square, and it without margins."""
    side = size.whole.pixels
    return _scaled(image, side, side), local_view(image, *size.local.pixels)


def batches(views: Sequence[Views]) -> tuple[Tensor, Tensor]:
    """`page_global` [batch, 3, pixels, pixels] and `page_local` [batch, 3, height, width], float32.

    (x/255 - 0.5) / 0.5, and normalized as for ImageNet.
    """
    whole, local = (
        torch.from_numpy(
            np.stack([np.broadcast_to(view, (3, *view.shape[1:])) for view in side])
        ).float()
        for side in zip(*views, strict=True)
    )
    return whole / 127.5 - 1, _by_imagenet(local / 255)


def blank(page_global: Tensor, page_local: Tensor) -> tuple[Tensor, Tensor]:
    """White pages in the shape of `batches`."""
    return torch.ones_like(page_global), _by_imagenet(torch.ones_like(page_local))


def _by_imagenet(share: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=share.device)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION, device=share.device)[:, None, None]
    return (share - mean) / deviation
