"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from pathlib import Path

from models.common.data_files import walk

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB = b"MATLAB 5.0 MAT-file"


ZUCO, EDF, BDF, EEGLAB, BRAINVISION, FIF = (
    "ZuCo .mat files (MATLAB 5, 7 or 7.3)",
    "EDF or EDF+ recordings",
    "BDF recordings",
    "EEGLAB .set files, with their .fdt",
    "BrainVision .vhdr files, with their .eeg and .vmrk",
    "FIF recordings",
)
_MFF, _MEF, _CTF = "EGI .mff folders", "MEF3 .mefd folders", "CTF .ds folders"
_FOLDERS = (_MFF, _MEF, _CTF)
"""Their recordings are folders."""
_NICOLET = "Nicolet .data recordings, with their .head"
_KINDS: tuple[tuple[str, tuple[str, ...], tuple[bytes, ...]], ...] = (
    (ZUCO, (".mat",), (_HDF5, _MATLAB)),
    (EDF, (".edf",), (b"0       ",)),
    (BDF, (".bdf",), (b"\xffBIOSEMI",)),
    (EEGLAB, (".set",), (_HDF5, _MATLAB)),
    (BRAINVISION, (".vhdr", ".ahdr"), (b"Brain", b"\xef\xbb\xbfBrain")),
    (FIF, (".fif", ".fif.gz"), (b"\0\0\0\x64\0\0\0\x1f", b"\x1f\x8b")),
    ("GDF recordings", (".gdf",), (b"GDF ",)),
    ("Neuroscan or ANT .cnt recordings", (".cnt",), (b"Version ", b"RIFF", b"RF64")),
    (_MFF, (".mff",), ()),
    ("Nihon Kohden .eeg recordings", (".eeg",), (b"EEG-", b"QI-403A", b"DAE-2100D")),
    ("BCI2000 .dat recordings", (".dat",), (b"HeaderLen=", b"BCI2000V=")),
    ("Curry .cdt or .dap recordings", (".cdt", ".dap"), ()),
    ("Persyst .lay recordings", (".lay",), ()),
    ("NEDF recordings", (".nedf",), ()),
    (_NICOLET, (".data",), ()),
    ("Blackrock .ns3 recordings", (".ns3",), ()),
    ("eXimia .nxe recordings", (".nxe",), ()),
    (_MEF, (".mefd",), ()),
    (_CTF, (".ds",), ()),
    ("KIT .sqd or .con recordings", (".sqd", ".con"), ()),
)
"""Each format, the ends of its names and, if there are any, its first bytes."""
FORMATS = tuple(name for name, *_ in _KINDS)
SUFFIXES = tuple(suffix for _, suffixes, _ in _KINDS for suffix in suffixes)
EMBEDDED = ("embedded:reading", "embedded:reading-small")
RECORDED = tuple(name for name in FORMATS if name != ZUCO)
"""Continuous recordings."""


def is_hdf5(head: bytes) -> bool:
    """Whether a file starts like HDF5; MATLAB 7.3 puts 512 bytes of its own before."""
    return head.startswith(_HDF5) or head[512:].startswith(_HDF5)


def of_file(path: Path) -> str | None:
    """The format of a file, by its name and first bytes; None if unknown. Reads the disk."""
    name, heads = _named(path)
    if name in _FOLDERS:
        return name if path.is_dir() else None
    if name is None or not path.is_file():
        return None
    if name == _NICOLET and not path.with_suffix(".head").is_file():
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(1024)
    except OSError:
        return None
    is_known = not heads or head.startswith(heads) or (_HDF5 in heads and is_hdf5(head))
    return name if head and is_known else None


def candidates(path: Path) -> list[Path]:
    """The recording itself, or those of a folder with the suffix of a recording, by name."""
    if not path.is_dir() or of_file(path) is not None:
        return [path]
    recordings = []
    for folder, folders, names in walk(path):
        recordings += [folder / n for n in names if _named(folder / n)[0] not in (None, *_FOLDERS)]
        whole = [name for name in folders if _named(folder / name)[0] in _FOLDERS]
        recordings += [folder / name for name in whole]
        folders[:] = [name for name in folders if name not in whole]
    return sorted(recordings)


def recognize(path: Path) -> str | None:
    """The format of a file, or of the first recording of a folder; None if unknown.

    Reads only names and first bytes.
    """
    return next(filter(None, map(of_file, candidates(path))), None)


def _named(path: Path) -> tuple[str | None, tuple[bytes, ...]]:
    """The format with the suffix of `path`, and its first bytes."""
    name = path.name.lower()
    return next((kind[::2] for kind in _KINDS if name.endswith(kind[1])), (None, ()))
