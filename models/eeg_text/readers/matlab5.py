"""ZuCo files of MATLAB 5 and 7, which are read as a whole."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.eeg_text.readers.sentence_data import fault_of_text, oriented

_FAULTS = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error)
"""What scipy raises of a file that is cut short or garbled."""


def sentences(path: Path) -> Iterator[tuple[str, int, np.ndarray, str | None]]:
    """Text, number of samples, EEG [time, 105] and fault of each sentence.

    Reads the whole file into memory. Raises DataError.
    """
    for entry in _entries(path):
        text = str(getattr(entry, "content", "")).strip()
        raw = np.asarray(getattr(entry, "rawData", np.nan))
        if raw.dtype.kind not in "fiu":
            raw = np.zeros((0,))
        eeg, fault = oriented(raw, time_first=False)
        yield text, len(eeg), eeg, fault or fault_of_text(text)


def _entries(path: Path) -> list[Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        found = loadmat(
            path, struct_as_record=False, squeeze_me=True, variable_names=["sentenceData"]
        )
    except (MatReadError, *_FAULTS) as error:
        raise DataError(
            f"'{path.name}' cannot be read: {error}",
            where=str(path),
            allowed="a whole MATLAB file",
        ) from None
    if "sentenceData" not in found:
        raise DataError(
            f"'{path.name}' holds no sentenceData", where=str(path), allowed="a result file of ZuCo"
        )
    return list(np.atleast_1d(found["sentenceData"]))
