"""Checks of continual learning, of launched ranks and of downloads, and the declared files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gearshift.launcher.base import redaction
from gearshift.launcher.base.diagnostics import Diagnostic, SettingsError, counted
from gearshift.launcher.config import errors
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    FILES_LAYER,
    MACHINE_LAYER,
    KeySets,
    Origin,
    Setting,
    Values,
)
from gearshift.launcher.config.schema import Download, File, safe_name

_ENABLED = "continual.enabled"
_PATH = "data.path"
_FILES = "download.files"
_FOLDER = "download.folder"
VARIABLES = "download.variables"


def check_run_folder(folder: Path, values: Values) -> None:
    """Raise SettingsError for a run folder inside the watched one: it would be read as data."""
    path = values[_PATH].value
    if folder.resolve().is_relative_to(Path(path).expanduser().resolve()):
        message = f"the run folder {folder} is inside the watched folder {path}"
        hint = "--out DIR  outside of it"
        raise SettingsError([errors.about(values, _PATH, message, hint=hint)])


def is_requested(values: Values) -> bool:
    """Whether the command line asks for the download; a file may come from others."""
    fetch = values["download.fetch"]
    return bool(fetch.value) and fetch.origin.layer == CLI_LAYER


def point_data_path(values: dict[str, Setting], keys: KeySets) -> list[str]:
    """Set `data.path` to the files to download, unless the user set it; gives lines to announce.

    Continual learning watches the folder of a single file.
    """
    downloads = declared_targets(values)
    if _PATH not in values or _PATH in keys.user or not downloads:
        return []
    first = downloads[0]
    is_watched = values[_ENABLED].value and not first.is_archive
    path = first.folder if is_watched or len(downloads) > 1 else first.path
    # The option, or the line of a file, that requests the download.
    where = errors.where("download.fetch", values["download.fetch"].origin)
    values[_PATH] = values[_PATH].overridden(str(path), Origin(MACHINE_LAYER, where))
    return [f"{_PATH}: {path}, from {where}"]


def will_download(values: Values, path: str) -> bool:
    """Whether `path` is in the download folder, so that it need not exist yet."""
    folders = [target.folder for target in declared_targets(values)]
    return is_requested(values) and any(map(Path(path).is_relative_to, folders))


def check_download(values: Values) -> Iterator[Diagnostic]:
    """A folder that a file chose elsewhere, and files without a local path of their own."""
    targets = declared_targets(values)
    folder = targets[0].folder
    is_inside = folder.resolve().is_relative_to(Path.cwd().resolve() / FOLDER)
    if is_requested(values) and values[_FOLDER].origin.layer != CLI_LAYER and not is_inside:
        yield errors.about(
            values,
            _FOLDER,
            f"only the command line can name a download folder outside of {FOLDER}/, or a link",
            value=str(folder),
            fix=f"--set {_FOLDER}={shlex.quote(str(folder))}",
        )
    names: set[str] = set()
    for index, target in enumerate(targets):
        name = target.path.name.casefold()
        if name in names or not target.name:
            url = target.file.url
            message = f"{_FILES}[{index}].url '{url}' has no file name of its own"
            yield errors.about(values, _FILES, message, value=url)
        names.add(name)


def declared_targets(values: Values) -> list[DownloadTarget]:
    """Every file of `download.files` with its paths, whether it is to be fetched or not."""
    section = {name: values[f"download.{name}"].value for name in Download.model_fields}
    return targets(Download.model_validate(section))


FOLDER = "downloads"
_ARCHIVE = re.compile(r"(.+?)\.(zip|tar(\.gz|\.bz2|\.xz)?|tgz|tbz2|txz)", re.IGNORECASE)
"""The name of an archive, and what is left of it."""


@dataclass(frozen=True)
class DownloadTarget:
    """A declared file and its local paths."""

    file: File
    name: str
    """Of the downloaded file, before it is unpacked; empty if neither URL nor user gives one."""
    folder: Path
    path: Path
    """The file, or the folder that its archive is unpacked to."""

    @property
    def is_archive(self) -> bool:
        """Whether it is unpacked."""
        return self.path.name != self.name

    @property
    def state(self) -> Path:
        """The folder of unfinished downloads, and of records of finished ones."""
        return self.folder / ".fetch"


def targets(download: Download) -> list[DownloadTarget]:
    """Every declared file with its paths, without access to the disk."""
    names = [file.name or safe_name(redaction.file_name(file.url)) for file in download.files]
    folder = Path(FOLDER)
    if download.folder:
        folder = Path(download.folder).expanduser()
    elif len(names) > 1:
        folder /= f"{Path(names[0]).stem}-and-{len(names) - 1}-more"
    declared = []
    for file, name in zip(download.files, names, strict=True):
        match = _ARCHIVE.fullmatch(name)
        path = folder / name
        if match and file.unpack == "auto":
            path = folder / match[1]
        declared.append(DownloadTarget(file, name, folder, path))
    return declared


def check_processes(values: Values, ranks: int, source: str) -> Iterator[Diagnostic]:
    """An error if the user sets other processes than the `ranks` that `source` starts on a node."""
    key = "engine.nproc"
    nproc = values[key]
    if nproc.origin.layer in (FILES_LAYER, CLI_LAYER) and nproc.value not in (None, ranks):
        problem = f"differs from the {counted(ranks, 'rank')} that {source} starts on each node"
        yield errors.about_value(values, key, problem, allowed=f"{ranks}, or null", new=ranks)
