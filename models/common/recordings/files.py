"""One function opens a recording, in training and in use."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from models.common.data_files import identity, unreadable_file
from models.common.recordings.recording import Recording


def open_recording(path: Path) -> Recording:
    """The recording at `path`, a file or a folder of its format; the last few are cached.

    Rates, gaps, units and encodings are those of its header; warnings of libraries are its notes.
    Reads the disk, but no samples. Raises DataError.
    """
    try:
        as_it_is = identity(path)
    except OSError as error:
        raise unreadable_file(path, error) from None
    recording, of_samples = _opened(path, as_it_is)
    if of_samples != _identities(recording):
        _opened.cache_clear()
        recording, _ = _opened(path, as_it_is)
    return recording


def _identities(recording: Recording) -> list[tuple[int, ...]]:
    """Those of its files of samples."""
    return [identity(file) for file in recording.files if file.is_file()]


@lru_cache(maxsize=8)
def _opened(path: Path, as_it_is: tuple[int, ...]) -> tuple[Recording, list[tuple[int, ...]]]:
    """Cached by the identity of the file; with those of its files of samples."""
    recording = _open(path)
    return recording, _identities(recording)


def _open(path: Path) -> Recording:
    from models.common.recordings import edf

    try:
        if path.is_file():
            with path.open("rb") as stream:
                head = stream.read(8)
            # MNE gives all channels one rate, and ignores gaps.
            if path.suffix.lower() in (".edf", ".bdf") or edf.is_edf(head):
                return edf.open_edf(path)
    except OSError as error:
        raise unreadable_file(path, error) from None
    from models.common.recordings.mne_raw import open_with_mne

    return open_with_mne(path)


def notes_of(recording: Recording) -> list[str]:
    """Its notes with the name of the file."""
    return [f"{recording.path.name}: {note}" for note in recording.notes]


def later_parts(path: Path) -> list[Path]:
    """The other files of a recording that is split into several. Raises DataError."""
    return [name for name in open_recording(path).files if name.resolve() != path.resolve()]
