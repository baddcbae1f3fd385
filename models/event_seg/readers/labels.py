"""Labels: edges of a camera frame, or a downsampled mask."""

from __future__ import annotations

import cv2
import numpy as np

from models.event_seg.readers.recording import IGNORED

LOW, HIGH, DILATION = 100, 200, 5
"""Canny thresholds on 8-bit gradients, and size of the dilation in pixels."""
RECIPE = f"Canny {LOW}/{HIGH} on the frame ending the window, dilated {DILATION}×{DILATION}"


def edges(frame: np.ndarray, factor: int) -> np.ndarray:
    """Edges of `frame` uint8 [height, width], after averaging `factor`² pixels: 0 or 1, uint8.

    Source: Canny, A Computational Approach to Edge Detection, 1986.
    """
    if factor > 1:
        height, width = (n // factor for n in frame.shape)
        cut = frame[: height * factor, : width * factor]
        frame = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
    thin = cv2.Canny(np.ascontiguousarray(frame), LOW, HIGH)
    return (cv2.dilate(thin, np.ones((DILATION, DILATION), np.uint8)) > 0).view(np.uint8)


def downsample_mask(mask: np.ndarray, factor: int) -> np.ndarray:
    """`mask` of 0, 1 and 255 with `factor`² pixels merged into one.

    The result is foreground if any pixel is, otherwise ignored if any pixel is.
    """
    if factor == 1:
        return np.ascontiguousarray(mask)
    height, width = (n // factor for n in mask.shape)
    cut = mask[: height * factor, : width * factor].reshape(height, factor, width, factor)
    ignored, foreground = (cut == IGNORED).any((1, 3)), (cut == 1).any((1, 3))
    return np.where(foreground, 1, np.where(ignored, IGNORED, 0)).astype(np.uint8)
