"""Noise control: every page gets the image of a page of another document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.base import DataError

MAX_GAIN = 1.0
"""Maximum BLEU gain of images of other documents over blank pages."""

MAX_R2_GAIN = 0.02
"""Maximum R² of patches predicted from a page of another document, above that of the mean page."""


def permute_images(documents: Sequence[str], seed: int) -> np.ndarray:
    """Random permutation of images that gives each page an image of another document.

    `documents`: document of each page. Raises DataError if one document has more than half of the
    pages.
    """
    _, owner, counts = np.unique(documents, return_inverse=True, return_counts=True)
    most = int(counts.max())
    if 2 * most > len(owner):
        raise DataError(
            f"the noise control cannot permute the images of {len(owner)} pages: {most} of them "
            "belong to one document",
            where="data.control=noise",
            allowed="at most half of a split's pages per document",
        )
    rng = np.random.default_rng(seed)
    # Sorted by document in random order; a shift by the largest count always changes the document.
    rank = rng.permutation(len(counts))[owner]
    order = np.lexsort((rng.random(len(owner)), rank))
    shown = np.empty(len(owner), dtype=np.int64)
    shown[order] = np.roll(order, -most)
    return shown
