"""Masks drawn for a recording: an HDF5 file beside it, with a mask and a time each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from models.base import DataError
from models.event_seg.readers.hdf5 import Hdf5
from models.event_seg.recording import IGNORED, check_ascending

SUFFIX = "_masks.h5"
LEGAL = (
    "`masks` [mask, height, width] uint8 of 0 background, 1 foreground, 255 ignored, and `t` "
    "[mask], microseconds of the recording, ascending"
)


def beside(path: Path) -> Path:
    """Where the masks of the recording at `path` are looked for."""
    return path.with_name(path.stem + SUFFIX)


class Masks:
    """The masks of one recording, read one by one."""

    def __init__(self, path: Path) -> None:
        """Reads the times. Raises DataError."""
        self._hdf5 = Hdf5(path)
        masks, times = self._masks, self._hdf5.dataset("t", LEGAL, 1)
        self.times = self._hdf5.read(times, slice(None))
        if self.times.dtype.kind not in "iu" or masks.dtype != np.uint8:
            told = f"`t` is {self.times.dtype}, `masks` is {masks.dtype}"
            raise DataError(
                f"'{path.name}' is no file of masks: {told}", where=str(path), allowed=LEGAL
            )
        if len(masks) != len(self.times) or len(masks) < 2:
            told = f"{len(masks)} masks and {len(self.times)} times"
            raise DataError(
                f"'{path.name}' has {told}",
                where=str(path),
                allowed="at least 2, and as many times",
            )
        self.times = self.times.astype(np.int64)
        check_ascending(self.times, str(path), "times of masks")
        self.sensor = int(masks.shape[1]), int(masks.shape[2])

    @property
    def _masks(self):  # type: ignore[no-untyped-def]  # h5py has no types
        return self._hdf5.dataset("masks", LEGAL, 3)

    def read(self, number: int) -> np.ndarray:
        """One mask, uint8 [height, width]. Raises DataError."""
        mask = self._hdf5.read(self._masks, number)
        if not np.isin(mask, (0, 1, IGNORED)).all():
            raise DataError(
                f"mask {number} holds {sorted(set(np.unique(mask)) - {0, 1, IGNORED})[0]}",
                where=str(self._hdf5.path),
                allowed=f"0, 1, {IGNORED}",
            )
        return mask
