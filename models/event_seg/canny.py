"""Edges of a picture in whole numbers, to the bit those of OpenCV."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from scipy import ndimage

_SHIFT = 15
_TANGENT = 13573
"""Of 22.5 degrees, times 2**_SHIFT."""


def squares(
    picture: ndarray,
    side: int,
) -> ndarray:
    """`picture` [height, width] in squares of `side`² pixels, without a remainder.

    Its axes are [row, y, column, x], with y and x within a square.
    """
    rows, columns = np.array(picture.shape) // side
    return picture[: rows * side, : columns * side].reshape(
        rows,
        side,
        columns,
        side,
    )


def shrunk(
    frame: ndarray,
    factor: int,
) -> ndarray:
    """The means of `factor`² pixels of `frame` uint8 [height, width], without a remainder: uint8.

    A half is rounded up for a factor of 2, otherwise to the even number, as `cv2.resize` does.
    """
    sums = squares(frame, factor).sum((1, 3), dtype=np.int32)
    if factor == 2:
        return ((sums + 2) >> 2).astype(np.uint8)
    means = sums * np.float32(1 / factor**2)
    return np.rint(means).astype(np.uint8)


def canny(
    frame: ndarray,
    low: int,
    high: int,
) -> ndarray:
    """Whether each pixel of `frame` uint8 [height, width] is on a thin edge: bool.

    Pixels above `low` that connect to one above `high`; the strength is |dx| + |dy| of Sobel's 3×3
    filter. Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    values = frame.astype(np.int16)
    dx = ndimage.sobel(values, axis=1, mode="nearest")
    dy = ndimage.sobel(values, axis=0, mode="nearest")
    strength = np.abs(dx) + np.abs(dy)

    # A weak edge counts where it is connected to a strong one.
    weak = strength > low
    weak[weak] = _is_peak(strength, weak, dx[weak], dy[weak])
    parts, count = ndimage.label(weak, np.ones((3, 3)))
    strong = weak & (strength > high)
    is_edge = np.zeros(count + 1, bool)
    is_edge[parts[strong]] = True
    return is_edge[parts]


def _is_peak(
    strength: ndarray,
    candidates: ndarray,
    dx: ndarray,
    dy: ndarray,
) -> ndarray:
    """Whether the `chosen` pixels, of the slopes `dx` and `dy`, are the strongest along them.

    Of two equal ones in a row or column, the first one is.
    """
    across = np.abs(dx.astype(np.int32))
    down = np.abs(dy.astype(np.int32)) << _SHIFT
    flat_limit = across * _TANGENT
    # The tangent of 67.5 degrees is larger than that of 22.5 degrees by 2.
    steep_limit = flat_limit + (across << (_SHIFT + 1))
    is_flat = down < flat_limit
    is_straight = is_flat | (down > steep_limit)

    padded = np.pad(strength, 1)
    width = padded.shape[1]
    offset = np.where(
        (dx ^ dy) < 0,
        width - 1,
        width + 1,
    )
    offset[is_straight] = width
    offset[is_flat] = 1

    values = padded.ravel()
    pixels = np.flatnonzero(np.pad(candidates, 1))
    value = values[pixels]
    before = values[pixels - offset]
    after = values[pixels + offset]
    is_above_after = np.where(
        is_straight,
        value >= after,
        value > after,
    )
    return is_above_after & (value > before)
