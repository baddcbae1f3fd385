"""HDF5 files with per-process handles, and mask files of recordings."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from models.base import DataError
from models.common.data_files import check_kind, hdf5_problem, library_errors
from models.event_seg.readers.recording import IGNORED, check_ascending


def _one_error(path: Path, problem: str, where: str) -> AbstractContextManager[None]:
    message, fix = f"'{path.name}' {problem}", "copy it again, or leave it out"
    return library_errors(message, where, allowed="a complete HDF5 file", fix=fix)


def _check_filters(dataset: h5py.Dataset, path: Path) -> None:
    """Raise DataError if an array is compressed by a filter that this installation lacks."""
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(number) for number in range(settings.get_nfilters())]
    if all(h5py.h5z.filter_avail(code) for code, *_ in filters):
        return
    with suppress(ImportError):
        import_module("hdf5plugin")  # adds filters; no dependency, since only DSEC needs it
    for code, _, _, name in filters:
        if not h5py.h5z.filter_avail(code):
            shown = name.decode("ascii", "replace") or "unknown"
            raise DataError(
                f"'{dataset.name}' of '{path.name}' is compressed by the HDF5 filter {code} "
                f"({shown}), which is not installed",
                where=str(path),
                allowed="arrays without compression, or with gzip, lzf or szip",
                fix="pip install hdf5plugin",
            )


class Hdf5:
    """One file; every process opens its own handle, also after a fork."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, h5py.File] | None = None
        self._whole: set[str] = set()
        """Arrays that were checked to be complete."""

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None, "_whole": self._whole}

    @property
    def file(self) -> h5py.File:
        """The open file. Raises DataError."""
        if self._opened is None or self._opened[0] != os.getpid():
            check_kind(self.path)  # masks beside a recording may be a pipe
            with _one_error(self.path, "cannot be opened as HDF5", str(self.path)):
                self._opened = os.getpid(), h5py.File(self.path, "r")
            assert self._opened is not None
        return self._opened[1]

    def dataset(self, name: str, allowed: str, axes: int) -> h5py.Dataset:
        """Array `name`; `allowed` describes the file layout.

        Raises DataError if it is missing or incomplete.
        """
        with _one_error(self.path, f"has an array '{name}' that cannot be read", str(self.path)):
            array = self.file.get(name)
            if not isinstance(array, h5py.Dataset) or array.ndim != axes:
                problem = "does not exist" if array is None else f"does not have {axes} axes"
                message = f"'{name}' {problem} in '{self.path.name}'"
                raise DataError(message, where=str(self.path), allowed=allowed)
            if name not in self._whole:
                _check_filters(array, self.path)
                if (claim := hdf5_problem(array)) is not None:
                    message = f"'{name}' of '{self.path.name}' {claim}"
                    whole = "a complete HDF5 file"
                    raise DataError(message, where=str(self.path), allowed=whole)
                self._whole.add(name)
        return array

    def has(self, name: str) -> bool:
        """Whether there is an array or a group `name`. Raises DataError."""
        with _one_error(self.path, f"has an entry '{name}' that cannot be read", str(self.path)):
            return name in self.file

    def read(self, dataset: h5py.Dataset, chosen: Any) -> np.ndarray:
        """Part of an array. Raises DataError if the file is damaged."""
        problem = f"has an array '{dataset.name}' that cannot be read"
        with _one_error(self.path, problem, f"{self.path}, {chosen}"):
            return np.asarray(dataset[chosen])


SUFFIX = "_masks.h5"
ALLOWED = (
    "`masks` [mask, height, width] uint8 of 0 background, 1 foreground, 255 ignored, and `t` "
    "[mask], microseconds of the recording, ascending"
)


def mask_path(path: Path) -> Path:
    """Path of the mask file for the recording at `path`."""
    return path.with_name(path.stem + SUFFIX)


class Masks:
    """Masks of one recording, read one by one."""

    def __init__(self, path: Path) -> None:
        """Read the times. Raises DataError."""
        self._hdf5 = Hdf5(path)
        masks, times = self._masks, self._hdf5.dataset("t", ALLOWED, 1)
        self.times = self._hdf5.read(times, slice(None))
        if self.times.dtype.kind not in "iu" or masks.dtype != np.uint8:
            types = f"`t` is {self.times.dtype}, `masks` is {masks.dtype}"
            raise DataError(f"'{path.name}' is not a mask file: {types}", where=str(path), allowed=ALLOWED)
        if len(masks) != len(self.times) or len(masks) < 2:
            raise DataError(
                f"'{path.name}' has {len(masks)} masks and {len(self.times)} times",
                where=str(path),
                allowed="at least 2 masks, and one time per mask",
            )
        self.times = self.times.astype(np.int64)
        check_ascending(self.times, str(path), "times of masks")
        self.sensor = int(masks.shape[1]), int(masks.shape[2])

    @property
    def _masks(self):  # type: ignore[no-untyped-def]  # h5py has no types
        return self._hdf5.dataset("masks", ALLOWED, 3)

    def read(self, number: int) -> np.ndarray:
        """Mask `number`, uint8 [height, width]. Raises DataError."""
        mask = self._hdf5.read(self._masks, number)
        if not np.isin(mask, (0, 1, IGNORED)).all():
            raise DataError(
                f"mask {number} contains {sorted(set(np.unique(mask)) - {0, 1, IGNORED})[0]}",
                where=str(self._hdf5.path),
                allowed=f"0, 1, {IGNORED}",
            )
        return mask
