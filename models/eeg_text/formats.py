"""The file formats that this family reads, and how a file is recognized."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from models.common.data_files import walk

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MATLAB = b"MATLAB 5.0 MAT-file"
_HEAD_BYTES = 1024


@dataclass(frozen=True)
class _Kind:
    """A format, by the end of its names and, if there are any, its first bytes."""

    name: str
    suffixes: tuple[str, ...]
    heads: tuple[bytes, ...] = ()
    is_folder: bool = False
    """Its recordings are folders."""
    beside: str | None = None
    """Suffix of a file that lies beside each recording."""


ZUCO, EDF, BDF, EEGLAB, BRAINVISION, FIF, OPENBCI = (
    "ZuCo .mat files (MATLAB 5, 7 or 7.3)",
    "EDF or EDF+ recordings",
    "BDF recordings",
    "EEGLAB .set files, with their .fdt",
    "BrainVision .vhdr files, with their .eeg and .vmrk",
    "FIF recordings",
    "OpenBCI .txt recordings",
)
_KINDS = (
    _Kind(ZUCO, (".mat",), (_HDF5, _MATLAB)),
    _Kind(EDF, (".edf",), (b"0       ", b"\xffBIOSEMI")),  # the content decides
    _Kind(BDF, (".bdf",), (b"0       ", b"\xffBIOSEMI")),
    _Kind(EEGLAB, (".set",), (_HDF5, _MATLAB)),
    _Kind(BRAINVISION, (".vhdr", ".ahdr"), (b"Brain", b"\xef\xbb\xbfBrain")),
    _Kind(FIF, (".fif", ".fif.gz"), (b"\0\0\0\x64\0\0\0\x1f", b"\x1f\x8b")),
    _Kind("GDF recordings", (".gdf",), (b"GDF ",)),
    _Kind("Neuroscan or ANT .cnt recordings", (".cnt",), (b"Version ", b"RIFF", b"RF64")),
    _Kind("EGI .mff folders", (".mff",), is_folder=True),
    _Kind("Nihon Kohden .eeg recordings", (".eeg",), (b"EEG-", b"QI-403A", b"DAE-2100D")),
    _Kind("BCI2000 .dat recordings", (".dat",), (b"HeaderLen=", b"BCI2000V=")),
    _Kind("Curry .cdt or .dap recordings", (".cdt", ".dap")),
    _Kind("Persyst .lay recordings", (".lay",)),
    _Kind("NEDF recordings", (".nedf",)),
    _Kind("Nicolet .data recordings, with their .head", (".data",), beside=".head"),
    _Kind("Blackrock .ns3 recordings", (".ns3",)),
    _Kind("eXimia .nxe recordings", (".nxe",)),
    _Kind("MEF3 .mefd folders", (".mefd",), is_folder=True),
    _Kind("CTF .ds folders", (".ds",), is_folder=True),
    _Kind("KIT .sqd or .con recordings", (".sqd", ".con")),
    _Kind(OPENBCI, (".txt",), (b"%OpenBCI",)),
)
FORMATS = tuple(kind.name for kind in _KINDS)
SUFFIXES = tuple(suffix for kind in _KINDS for suffix in kind.suffixes)
EMBEDDED = ("embedded:reading", "embedded:reading-small")
RECORDED = tuple(name for name in FORMATS if name != ZUCO)
"""Continuous recordings."""


def is_hdf5(head: bytes) -> bool:
    """Whether a file starts like HDF5; MATLAB 7.3 puts 512 bytes of its own before."""
    return head.startswith(_HDF5) or head[512:].startswith(_HDF5)


def of_file(path: Path) -> str | None:
    """The format of a file, by its name and first bytes; None if unknown. Reads the disk."""
    kind = _named(path)
    if kind is None or kind.is_folder != path.is_dir():
        return None
    if kind.beside is not None and not path.with_suffix(kind.beside).is_file():
        return None
    if kind.is_folder:
        return kind.name
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return None
    is_known = head.startswith(kind.heads) or (_HDF5 in kind.heads and is_hdf5(head))
    return kind.name if head and (is_known or not kind.heads) else None


def candidates(path: Path) -> list[Path]:
    """The recording itself, or those of a folder with the suffix of a recording, by name."""
    if not path.is_dir() or of_file(path) is not None:
        return [path]
    recordings = []
    for folder, folders, names in walk(path):
        paths = [folder / name for name in (*folders, *names)]
        recordings += [p for p in paths if (kind := _named(p)) and kind.is_folder == p.is_dir()]
        folders[:] = [name for name in folders if not _is_recording(name)]
    return sorted(recordings)


def recognize(path: Path) -> str | None:
    """The format of a file, or of the first recording of a folder; None if unknown.

    Reads only names and first bytes.
    """
    return next((name for file in candidates(path) if (name := of_file(file))), None)


def _named(path: Path) -> _Kind | None:
    name = path.name.lower()
    return next((kind for kind in _KINDS if name.endswith(kind.suffixes)), None)


def _is_recording(folder: str) -> bool:
    kind = _named(Path(folder))
    return kind is not None and kind.is_folder
