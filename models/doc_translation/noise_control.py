"""The noise control: every page is shown the image of a page from another document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.base import DataError

MOST_GAIN = 1.0
"""BLEU that images of other documents may be better than blank pages."""


def strangers(documents: Sequence[str], seed: int) -> np.ndarray:
    """For each page, the page whose image it is shown: one of another document, each once.

    `documents` names the document of each page. Raises DataError if more than half of the pages
    are of one document.
    """
    _, owner, counts = np.unique(documents, return_inverse=True, return_counts=True)
    most = int(counts.max())
    if 2 * most > len(owner):
        raise DataError(
            f"the noise control cannot exchange the images of {len(owner)} pages: {most} of them "
            "are of one document",
            where="data.control=noise",
            allowed="no document with more than half of a split's pages",
        )
    rng = np.random.default_rng(seed)
    # Documents in a random order, their pages together: so many places further is another document.
    rank = rng.permutation(len(counts))[owner]
    order = np.lexsort((rng.random(len(owner)), rank))
    shown = np.empty(len(owner), dtype=np.int64)
    shown[order] = np.roll(order, -most)
    return shown
