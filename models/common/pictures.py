"""Pictures of samples, made small enough for a page of many."""

from __future__ import annotations

import math
from io import BytesIO

from PIL import Image

COLORS = 64
_SMALLER = 0.9
"""Factor of the sides at least: compression differs with the size."""


def small(png: bytes, side: int, most: int) -> bytes:
    """The picture as a PNG of at most `side` pixels a side and `most` bytes, in a few colors.

    Raises OSError: it is no picture.
    """
    image = Image.open(BytesIO(png)).convert("RGB")
    while True:
        image.thumbnail((side, side))
        file = BytesIO()
        image.quantize(COLORS).save(file, "PNG", optimize=True)
        if file.tell() <= most:
            return file.getvalue()
        side = int(max(image.size) * min(_SMALLER, math.sqrt(most / file.tell())))
