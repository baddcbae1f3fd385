"""A page's image as the two encoders want it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

WHITE = 255
INK = 200
"""A darker dot is no background. Source: Blecher et al., Nougat, 2023, its released code."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def without_margins(image: Image.Image) -> Image.Image:
    """The part of a page that is printed on; a blank page as it is."""
    grey = np.asarray(image.convert("L"))
    low, high = int(grey.min()), int(grey.max())
    if low == high:
        return image
    # Stretched first: faded ink on grey paper is ink, too.
    dark = (grey.astype(np.float32) - low) / (high - low) * WHITE < INK
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    return image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))


def whole_view(image: Image.Image, pixels: int) -> np.ndarray:
    """The whole page squeezed into a square, uint8 [channel, pixels, pixels]; 1 or 3 channels."""
    return _channels(_scaled(image, (pixels, pixels)))


def near_view(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The page without margins, in its proportions, white around it, uint8 [channel, h, w]."""
    inner = without_margins(image)
    scale = min(height / inner.height, width / inner.width)
    size = (max(1, round(inner.width * scale)), max(1, round(inner.height * scale)))
    found = _channels(_scaled(inner, size))
    page = np.full((found.shape[0], height, width), WHITE, dtype=np.uint8)
    top, left = (height - found.shape[1]) // 2, (width - found.shape[2]) // 2
    page[:, top : top + found.shape[1], left : left + found.shape[2]] = found
    return page


def _scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    # What is shrunk is averaged over all dots that fall together, so that thin strokes stay.
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _channels(image: Image.Image) -> np.ndarray:
    dots = np.asarray(image)
    return dots[None] if dots.ndim == 2 else dots.transpose(2, 0, 1)


def global_batch(views: Sequence[np.ndarray]) -> Tensor:
    """`page_global` [batch, 3, pixels, pixels], float32: (x/255 - 0.5) / 0.5."""
    return _stacked(views) / 127.5 - 1


def local_batch(views: Sequence[np.ndarray]) -> Tensor:
    """`page_local` [batch, 3, height, width], float32, by ImageNet's mean and deviation."""
    return _by_imagenet(_stacked(views) / 255)


def blank(page_global: Tensor, page_local: Tensor) -> tuple[Tensor, Tensor]:
    """White pages in the place of a batch, as global_batch and local_batch would give them."""
    white = _by_imagenet(torch.ones_like(page_local))
    return torch.ones_like(page_global), white


def _by_imagenet(share: Tensor) -> Tensor:
    mean = torch.tensor(IMAGENET_MEAN, device=share.device)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION, device=share.device)[:, None, None]
    return (share - mean) / deviation


def _stacked(views: Sequence[np.ndarray]) -> Tensor:
    three = [np.broadcast_to(view, (3, *view.shape[1:])) for view in views]
    return torch.from_numpy(np.stack(three)).float()
