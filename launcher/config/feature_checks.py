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
    Resolved,
    Setting,
    Values,
    hub_names,
)
from gearshift.launcher.config.schema import ALLOWED_FILES, Download, File, safe_name
from gearshift.slurm.environment import RankEnvironment

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
    """Whether the command line asks for the download; a file may be from somebody else."""
    fetch = values["download.fetch"]
    return bool(fetch.value) and fetch.origin.layer == CLI_LAYER


def point_data_path(values: dict[str, Setting], keys: KeySets) -> list[str]:
    """Set `data.path` to the files to download, unless the user set it; gives lines to announce.

    Continual learning watches a folder: a single file is downloaded into one of its own.
    """
    downloads = declared_targets(values)
    if _PATH not in values or _PATH in keys.user or not downloads:
        return []
    first = downloads[0]
    # The option, or the line of a file, that requests the download.
    where = errors.where("download.fetch", values["download.fetch"].origin)
    origin = Origin(MACHINE_LAYER, where)
    folder = values[_FOLDER]
    is_folder = len(downloads) > 1 or first.is_archive
    path = first.folder if len(downloads) > 1 else first.path
    if values[_ENABLED].value and not is_folder:
        path = first.folder
        if folder.value is None:
            path = Path(FOLDER, first.path.stem)
            values[_FOLDER] = folder.overridden(str(path), origin)
    values[_PATH] = values[_PATH].overridden(str(path), origin)
    return [f"{_PATH}: {path}, from {where}"]


def will_download(values: Values, path: str) -> bool:
    """Whether `path` is in the download folder, so that it need not exist yet."""
    folders = [target.folder for target in declared_targets(values)]
    return is_requested(values) and any(map(Path(path).is_relative_to, folders))


def check_download(values: Values, keys: KeySets) -> Iterator[Diagnostic]:
    """Variables that a file allows, and files that are not declared, are not downloaded, have no
    name, or one local path."""
    if values[VARIABLES].value and values[VARIABLES].origin.layer != CLI_LAYER:
        problem = "is not on the command line: a file cannot allow itself to send variables"
        yield errors.about_value(values, VARIABLES, problem, is_removed=True)
    is_fetched = values["download.fetch"].value
    targets = declared_targets(values)
    if targets and is_requested(values) and values[_FOLDER].origin.layer != CLI_LAYER:
        folder = targets[0].folder
        if not folder.resolve().is_relative_to(Path.cwd().resolve() / FOLDER):
            yield errors.about(
                values,
                _FOLDER,
                f"only the command line can name a download folder outside of {FOLDER}/, or a link",
                value=str(folder),
                fix=f"--set {_FOLDER}={shlex.quote(str(folder))}",
            )
    if is_fetched and not targets and not hub_names(values, _PATH):
        message = f"{_FILES} declares no URL"
        yield errors.about(
            values, "download.fetch", message, key=_FILES, value=None, allowed=ALLOWED_FILES
        )
    if not is_fetched and _FILES in keys.decided and _PATH in values and _PATH not in keys.user:
        data = values[_PATH].value
        message = f"{_FILES} is declared but not downloaded: the run would train on {data}"
        yield errors.about(values, _FILES, message, fix="--download-data", severity="warning")
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
        match = _ARCHIVE.fullmatch(names[0])
        stem = Path(match[1] if match else names[0]).stem
        folder /= f"{stem}-and-{len(names) - 1}-more"
    declared = []
    for file, name in zip(download.files, names, strict=True):
        match = _ARCHIVE.fullmatch(name)
        path = folder / name
        if match and file.unpack == "auto":
            path = folder / match[1]
        declared.append(DownloadTarget(file, name, folder, path))
    return declared


def check_launched(resolved: Resolved, launched: RankEnvironment) -> Iterator[Diagnostic]:
    """Errors of settings that a run under torchrun or srun cannot have."""
    values = resolved.values
    source = launched.source
    yield from check_processes(values, launched.local_size, source)
    key = "engine.max_restarts"
    if values[key].value:
        problem = f"is impossible: only {source} can restart the processes that it started"
        yield errors.about_value(values, key, problem, allowed=f"0 under {source}")
    if values[_ENABLED].value:  # nothing is left to watch the folder after the ranks
        problem = f"cannot run under {source}: the processes that it started end with the data"
        yield errors.about_value(values, _ENABLED, problem, allowed=f"--nproc N, without {source}")


def check_processes(values: Values, ranks: int, source: str) -> Iterator[Diagnostic]:
    """An error if the user sets other processes than the `ranks` that `source` starts on a node."""
    key = "engine.nproc"
    nproc = values[key]
    if nproc.origin.layer in (FILES_LAYER, CLI_LAYER) and nproc.value not in (None, ranks):
        problem = f"differs from the {counted(ranks, 'rank')} that {source} starts on each node"
        yield errors.about_value(values, key, problem, allowed=f"{ranks}, or null", new=ranks)
