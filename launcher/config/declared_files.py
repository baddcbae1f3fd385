"""The files that settings declare for download, and their local paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.base import redaction
from launcher.config.feature_settings import Download, File, safe_name

Kind = Literal["zip", "tar", "gz", "bz2", "xz"]
"""zip and tar are unpacked to a folder; the others, one compressed file, to that file."""
FOLDER = "downloads"
_STATE = ".fetch"
_SUFFIXES: dict[str, Kind] = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar",
    ".tgz": "tar",
    ".tar.bz2": "tar",
    ".tbz2": "tar",
    ".tar.xz": "tar",
    ".txz": "tar",
    ".gz": "gz",
    ".bz2": "bz2",
    ".xz": "xz",
}


@dataclass(frozen=True)
class Target:
    """A declared file and its local paths."""

    file: File
    name: str
    """Of the downloaded file, before it is unpacked; empty if neither URL nor user gives one."""
    folder: Path

    @property
    def kind(self) -> Kind | None:
        """How it is unpacked; None: it is not."""
        return _split_suffix(self.name)[1] if self.file.unpack == "auto" else None

    @property
    def path(self) -> Path:
        """The file, or the folder that its archive is unpacked to."""
        return self.folder / (_split_suffix(self.name)[0] if self.kind else self.name)

    @property
    def state(self) -> Path:
        """The folder of unfinished downloads, and of records of finished ones."""
        return self.folder / _STATE


def targets(download: Download) -> list[Target]:
    """Every declared file with its paths, without access to the disk."""
    names = [file.name or safe_name(redaction.file_name(file.url)) for file in download.files]
    if download.folder:
        folder = Path(download.folder).expanduser()
    elif len(names) <= 1:
        folder = Path(FOLDER)
    else:
        first = Path(_split_suffix(names[0])[0]).stem
        folder = Path(FOLDER, f"{first}-and-{len(names) - 1}-more")
    return [Target(file, name, folder) for file, name in zip(download.files, names, strict=True)]


def data_path(found: list[Target]) -> str:
    """`data.path` of the targets: the only file, or the folder of several."""
    return str(found[0].path if len(found) == 1 else found[0].folder)


def _split_suffix(name: str) -> tuple[str, Kind | None]:
    """The name without the suffix of an archive, and the kind of archive; None: it is none."""
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], _SUFFIXES[suffix]
    return name, None
