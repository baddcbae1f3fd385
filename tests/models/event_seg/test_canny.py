"""Edges are those of OpenCV to the bit, for pictures of any kind, size and downsampling."""

import numpy as np
import pytest
from scipy import ndimage

from gearshift.models.event_seg import embedded
from gearshift.models.event_seg.config import SIZES
from gearshift.models.event_seg.readers.recording import DILATION, HIGH, LOW, edges


def by_opencv(frame, factor):
    cv2 = pytest.importorskip("cv2")
    if factor > 1:
        height, width = (n // factor for n in frame.shape)
        cut = frame[: height * factor, : width * factor]
        frame = cv2.resize(cut, (width, height), interpolation=cv2.INTER_AREA)
    thin = cv2.Canny(frame, LOW, HIGH)
    return cv2.dilate(thin, np.ones((DILATION, DILATION), np.uint8)) > 0


def pictures(rng, height, width):
    """Noise, smooth shapes, two levels of grey, and steps of equal strength."""
    noise = rng.integers(0, 256, (height, width)).astype(np.uint8)
    smooth = ndimage.gaussian_filter(rng.normal(0, 300, (height, width)), 2) + 128
    levels = np.where(noise > 128, rng.integers(20, 255), 0)
    steps = np.arange(height)[:, None] // 4 * 25 + np.arange(width) // 4 * 25
    return [
        noise,
        *(np.clip(values, 0, 255).astype(np.uint8) for values in (smooth, levels, steps % 256)),
    ]


@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5, 8])
def test_edges_of_any_picture_are_those_of_opencv(factor):
    rng = np.random.default_rng(factor)
    for _ in range(6):
        height, width = rng.integers(factor, 90, 2)
        for frame in pictures(rng, height, width):
            assert (edges(frame, factor) == by_opencv(frame, factor)).all(), (height, width)


def test_labels_of_the_built_in_clips_are_those_of_opencv():
    sensor = SIZES["tiny"].sensor
    frames = embedded._arrays(sensor)["frames"]
    for frame in frames[::10]:
        assert (edges(frame, 1) == by_opencv(frame, 1)).all()
