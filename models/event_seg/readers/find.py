"""All recordings under a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.base import DataError
from models.common import paths
from models.common.faults import Faults
from models.event_seg.formats import ASIDE, FORMATS, recognise
from models.event_seg.readers.mvsec import MvsecRecording
from models.event_seg.readers.raw import RawRecording, Told
from models.event_seg.recording import Recording


def recordings(path: Path, told: Told, faults: Faults) -> tuple[list[Recording], int]:
    """The recordings in a file or folder, by name, and how many files are none.

    A recording of a folder that cannot be used goes to `faults`. Raises DataError where there is
    none, and where sensors differ.
    """
    files = paths.files(path)
    chosen = [file for file in files if recognise(file)]
    if not chosen:
        raise paths.no_format(path, FORMATS)
    found: list[Recording] = []
    for file in chosen:
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        try:
            found.append(_open(file, name, told))
        except DataError as error:
            if len(chosen) == 1:
                raise
            faults.add(f"{name} ({error.where})", error.message)
    _check_sensors(found, path)
    others = len([file for file in files if not file.name.endswith(ASIDE)]) - len(chosen)
    return found, others


def _open(file: Path, name: str, told: Told) -> Recording:
    if recognise(file) == FORMATS[0]:
        return MvsecRecording(file, name)
    return RawRecording(file, name, told)


def _check_sensors(found: Sequence[Recording], path: Path) -> None:
    sensors = {recording.sensor: recording.name for recording in found}
    if len(sensors) > 1:
        sizes = ", ".join(f"{h}×{w} ({name})" for (h, w), name in sorted(sensors.items())[:3])
        raise DataError(
            f"recordings of different sensors: {sizes}",
            where=str(path),
            allowed="recordings of one size",
            fix="one folder a camera, or  --set data.sensor=[HEIGHT,WIDTH]  for RAW files",
        )
