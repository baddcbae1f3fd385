"""Labels: the edges of a camera frame, or a mask as it stands, at the resolution of the samples."""

from __future__ import annotations

import cv2
import numpy as np

from models.event_seg.readers.recording import IGNORED

LOW, HIGH, DILATION = 100, 200, 5
"""Thresholds of Canny's method on 8-bit gradients, and the edge in pixels of what dilates."""
RECIPE = f"Canny {LOW}/{HIGH} on the frame ending the window, dilated {DILATION}×{DILATION}"


def edges(frame: np.ndarray, factor: int) -> np.ndarray:
    """The edges of `frame` uint8 [height, width], after averaging `factor`² pixels: 0 or 1, uint8.

    Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    if factor > 1:
        height, width = (n // factor for n in frame.shape)
        frame = cv2.resize(
            frame[: height * factor, : width * factor],
            (width, height),
            interpolation=cv2.INTER_AREA,
        )
    thin = cv2.Canny(np.ascontiguousarray(frame), LOW, HIGH)
    return (cv2.dilate(thin, np.ones((DILATION, DILATION), np.uint8)) > 0).view(np.uint8)


def coarser(mask: np.ndarray, factor: int) -> np.ndarray:
    """`mask` of 0, 1 and 255 with `factor`² pixels made one.

    It is foreground if any of them is, and otherwise ignored if any is.
    """
    if factor == 1:
        return np.ascontiguousarray(mask)
    height, width = (n // factor for n in mask.shape)
    cut = mask[: height * factor, : width * factor].reshape(height, factor, width, factor)
    ignored, foreground = (cut == IGNORED).any((1, 3)), (cut == 1).any((1, 3))
    return np.where(foreground, 1, np.where(ignored, IGNORED, 0)).astype(np.uint8)
