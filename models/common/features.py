"""Features of a trained encoder as a prediction: one .npz file for each input."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from models.base import Prediction

Array = NDArray[np.float32]


def prediction(
    name: str,
    title: str,
    items: Sequence[str],
    features: Array,
    valid: NDArray[np.bool_] | None = None,
    more: Mapping[str, NDArray[np.generic]] | None = None,
) -> Prediction:
    """The file of one input; numpy.load reads it.

    `items`: the names of its parts. `features` [item, token, width], of which those count that
    are `valid` [item, token]; None: all. `mean` [item, width] in the file is their mean. `more`
    are further arrays of the file.
    """
    if valid is None:
        valid = np.ones(features.shape[:2], dtype=bool)
    count = np.maximum(valid.sum(1, keepdims=True), 1)
    arrays = {
        "item": np.array(items, dtype=np.str_),
        "features": features.astype(np.float32),
        "valid": valid,
        "mean": ((features * valid[..., None]).sum(1) / count).astype(np.float32),
        **(more or {}),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    size = " × ".join(map(str, features.shape))
    text = f"{title}: features, {size} [item × token × width]"
    return Prediction(name, text, {".npz": file.getvalue()})
