"""Windows drawn for a person: events by polarity, beside what is to be learnt of them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from models.base import Picture
from models.event_seg.windows import Sample

_LEAST_WIDTH = 320
_RED, _BLUE, _GREY = (214, 39, 40), (31, 119, 180), (127, 127, 127)


def draw(sample: Sample, number: int) -> Picture:
    """The voxel grid summed over time, red where it is brighter and blue where it is darker, and to
    its right the label: foreground white, ignored grey; or the hidden pixels grey."""
    left = _polarity(sample.events.sum(0))
    right = _label(sample.labels) if sample.hidden is None else left.copy()
    if sample.hidden is not None:
        right[sample.hidden] = _GREY
    picture = np.concatenate((left, np.full((len(left), 4, 3), 255, np.uint8), right), axis=1)
    times = max(1, -(-_LEAST_WIDTH // picture.shape[1]))
    image = Image.fromarray(picture.repeat(times, 0).repeat(times, 1))
    file = io.BytesIO()
    image.save(file, format="PNG")
    meta = sample.meta
    what = "the pixels to tell" if sample.hidden is not None else "its label"
    caption = (
        f"{meta['recording']}, window {meta['frame']}: {meta['events']:,} events in "
        f"{1e3 * (meta['t1'] - meta['t0']):.3g} ms (red brighter, blue darker), and {what}"
    )
    return Picture(f"window_{number}", caption, file.getvalue())


def _polarity(mass: np.ndarray) -> np.ndarray:
    """White where nothing happened, [height, width, 3] uint8."""
    # Not the largest: one hot pixel would make all others pale.
    strength = np.clip(np.abs(mass) / max(1e-6, float(np.quantile(np.abs(mass), 0.98))), 0, 1)
    colour = np.where((mass > 0)[..., None], np.array(_RED), np.array(_BLUE))
    return (255 - strength[..., None] * (255 - colour)).astype(np.uint8)


def _label(labels: np.ndarray) -> np.ndarray:
    shade = np.select([labels == 1, labels == 0], [255, 0], _GREY[0]).astype(np.uint8)
    return np.repeat(shade[..., None], 3, axis=2)
