"""Where each file that the settings declare comes to lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.base import redaction
from launcher.config.feature_settings import Download, File
from launcher.download import kinds, names
from launcher.download.kinds import Kind

FOLDER = "downloads"
STATE = ".fetch"
"""The folder, in that of the files, of what is unfinished, and of what is known of the rest."""


@dataclass(frozen=True)
class Target:
    """One file, from its URL to its place."""

    file: File
    name: str
    """As it is fetched."""
    folder: Path

    @property
    def kind(self) -> Kind | None:
        """How it is unpacked; None: not at all."""
        return kinds.split(self.name)[1] if self.file.unpack == "auto" else None

    @property
    def path(self) -> Path:
        """The file, or what its archive becomes."""
        return self.folder / (kinds.split(self.name)[0] if self.kind else self.name)

    @property
    def state(self) -> Path:
        """The folder of what is unfinished."""
        return self.folder / STATE


def targets(download: Download) -> list[Target]:
    """Every declared file with its place; nothing is looked at."""
    named = [(file, name_of(file)) for file in download.files]
    folder = Path(download.folder).expanduser() if download.folder else _folder(named)
    return [Target(file, name, folder) for file, name in named]


def name_of(file: File) -> str:
    """What a file is called here; empty where neither its URL nor the person names it."""
    return file.name or names.safe(redaction.file_name(file.url))


def data_path(found: Sequence[Target]) -> str:
    """What `data.path` is to be: the file, or the folder of several."""
    return str(found[0].path if len(found) == 1 else found[0].folder)


def _folder(named: Sequence[tuple[File, str]]) -> Path:
    if len(named) <= 1:
        return Path(FOLDER)
    first = Path(kinds.split(named[0][1])[0]).stem
    return Path(FOLDER, f"{first}-and-{len(named) - 1}-more")
