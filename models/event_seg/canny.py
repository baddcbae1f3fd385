"""Edges of a picture in whole numbers, to the bit those of OpenCV."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_SHIFT = 15
_TANGENT = 13573
"""Of 22.5 degrees, times 2**_SHIFT."""


def shrunk(frame: np.ndarray, factor: int) -> np.ndarray:
    """The means of `factor`² pixels of `frame` uint8 [height, width], without a remainder: uint8.

    A half is rounded up for a factor of 2, otherwise to the even number, as `cv2.resize` does.
    """
    height, width = (n // factor for n in frame.shape)
    cut = frame[: height * factor, : width * factor].reshape(height, factor, width, factor)
    sums = cut.sum((1, 3), dtype=np.int32)
    if factor == 2:
        return ((sums + 2) >> 2).astype(np.uint8)
    return np.rint(sums * np.float32(1 / factor**2)).astype(np.uint8)


def canny(frame: np.ndarray, low: int, high: int) -> np.ndarray:
    """Whether each pixel of `frame` uint8 [height, width] is on a thin edge: bool.

    Pixels above `low` that connect to one above `high`; the strength is |dx| + |dy| of Sobel's 3×3
    filter. Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    dx, dy = _sobel(frame)
    strength = np.abs(dx) + np.abs(dy)
    rows, columns = np.nonzero(strength > low)
    is_peak = _is_peak(strength, rows, columns, dx[rows, columns], dy[rows, columns])
    weak = np.zeros(frame.shape, bool)
    weak[rows, columns] = is_peak
    parts, count = ndimage.label(weak, np.ones((3, 3)))
    is_edge = np.zeros(count + 1, bool)
    is_edge[parts[weak & (strength > high)]] = True
    return is_edge[parts]


def dilated(mask: np.ndarray, size: int) -> np.ndarray:
    """`mask` bool [height, width], each true pixel as a square of `size` pixels: 0 or 1, uint8."""
    return ndimage.maximum_filter(mask.view(np.uint8), size, mode="constant")


def _sobel(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives along x and y, int16."""
    wide = np.pad(frame, 1, mode="edge").astype(np.int16)
    down = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    across = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return down[:, 2:] - down[:, :-2], across[2:] - across[:-2]


def _is_peak(
    strength: np.ndarray, rows: np.ndarray, columns: np.ndarray, dx: np.ndarray, dy: np.ndarray
) -> np.ndarray:
    """Whether pixels are the strongest along their gradient, of two equal ones the first."""
    wide = np.pad(strength, 1)
    step = wide.shape[1]
    x = np.abs(dx.astype(np.int32))
    y = np.abs(dy.astype(np.int32)) << _SHIFT
    is_flat = y < x * _TANGENT
    is_steep = y > x * _TANGENT + (x << (_SHIFT + 1))  # the tangent of 67.5 degrees is larger by 2
    diagonal = np.where((dx ^ dy) < 0, step - 1, step + 1)
    offset = np.where(is_flat, 1, np.where(is_steep, step, diagonal))
    pixel = (rows + 1) * step + columns + 1
    values = wide.ravel()
    here = values[pixel]
    after = values[pixel + offset]
    beats_after = np.where(is_flat | is_steep, here >= after, here > after)
    return (here > values[pixel - offset]) & beats_after
