"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from pathlib import Path

from gearshift.models.common.data_files import walk

_MATLAB = (b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file", b"\x89HDF\r\n\x1a\n")


ZUCO = "ZuCo .mat files (MATLAB 5, 7 or 7.3)"
EDF = "EDF or EDF+ recordings"
BDF = "BDF recordings"
EEGLAB = "EEGLAB .set files, with their .fdt"
BRAINVISION = "BrainVision .vhdr files, with their .eeg and .vmrk"
FIF = "FIF recordings"
EGI = "EGI .mff folders"
_EGI_SUFFIX = ".mff"
"""The format whose recordings are folders, and the end of their names."""
_KINDS: tuple[tuple[str, tuple[str, ...], tuple[bytes, ...]], ...] = (
    (ZUCO, (".mat",), _MATLAB),
    (EDF, (".edf",), (b"0       ",)),
    (BDF, (".bdf",), (b"\xffBIOSEMI",)),
    (EEGLAB, (".set",), _MATLAB),
    (BRAINVISION, (".vhdr", ".ahdr"), (b"Brain", b"\xef\xbb\xbfBrain")),
    (FIF, (".fif", ".fif.gz"), (b"\0\0\0\x64\0\0\0\x1f", b"\x1f\x8b")),
    ("GDF recordings", (".gdf",), (b"GDF ",)),
    ("Neuroscan or ANT .cnt recordings", (".cnt",), (b"Version ", b"RIFF", b"RF64")),
    ("Nihon Kohden .eeg recordings", (".eeg",), (b"EEG-", b"QI-403A", b"DAE-2100D")),
    ("BCI2000 .dat recordings", (".dat",), (b"HeaderLen=", b"BCI2000V=")),
)
"""Each format of files, the ends of their names and their first bytes."""
FORMATS = (*(name for name, *_ in _KINDS), EGI)
_OF_FILES = tuple(suffix for _, suffixes, _ in _KINDS for suffix in suffixes)
EMBEDDED = ("embedded:reading", "embedded:reading-small")


def of_file(path: Path) -> str | None:
    """The format of a file, by its name and first bytes; None if unknown. Reads the disk."""
    name = path.name.lower()
    if path.is_dir():
        return EGI if name.endswith(_EGI_SUFFIX) else None
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(32)
    except OSError:
        return None
    for form, suffixes, heads in _KINDS:
        if name.endswith(suffixes):
            return form if head.startswith(heads) else None
    return None


def candidates(path: Path) -> list[Path]:
    """The recording itself, or those of a folder with the suffix of a recording, by name."""
    if not path.is_dir() or of_file(path) is not None:
        return [path]
    recordings = []
    for folder, folders, names in walk(path):
        for name in list(folders):
            if name.lower().endswith(_EGI_SUFFIX):
                recordings.append(folder / name)
                folders.remove(name)  # its files are no recordings
        recordings += [folder / name for name in names if name.lower().endswith(_OF_FILES)]
    return sorted(recordings)


def recognize(path: Path) -> str | None:
    """The format of a file, or of the first recording of a folder; None if unknown.

    Reads only names and first bytes.
    """
    return next(filter(None, map(of_file, candidates(path))), None)
