"""HDF5 files that are opened in whatever process reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.base import DataError


class Hdf5:
    """One file. A copy in another process, forked or sent there, opens it anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, h5py.File] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    @property
    def file(self) -> h5py.File:
        """The open file. Raises DataError."""
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                self._opened = os.getpid(), h5py.File(self.path, "r")
            except OSError as error:
                raise DataError(
                    f"'{self.path.name}' cannot be opened as HDF5: {error}",
                    where=str(self.path),
                    allowed="a whole HDF5 file",
                ) from None
        return self._opened[1]

    def dataset(self, name: str, allowed: str, axes: int) -> h5py.Dataset:
        """One of its arrays. Raises DataError, with `legal` as what the file must hold."""
        found = self.file.get(name)
        if not isinstance(found, h5py.Dataset) or found.ndim != axes:
            told = "is not there" if found is None else f"is no array of {axes} axes"
            raise DataError(
                f"'{name}' {told} in '{self.path.name}'", where=str(self.path), allowed=allowed
            )
        return found

    def read(self, dataset: h5py.Dataset, chosen: Any) -> np.ndarray:
        """A part of an array. Raises DataError where the file is broken there."""
        try:
            return np.asarray(dataset[chosen])
        except OSError as error:
            raise DataError(
                f"'{dataset.name}' of '{self.path.name}' cannot be read: {error}",
                where=f"{self.path}, {chosen}",
                allowed="a whole HDF5 file",
            ) from None
