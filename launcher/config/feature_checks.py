"""Checks of the settings of continual learning and downloads; the files declared for download."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.base import redaction
from launcher.base.diagnostics import Diagnostic, SettingsError, shown
from launcher.config import errors
from launcher.config.feature_settings import ALLOWED_FILES, Download, File, safe_name
from launcher.config.provenance import CLI_LAYER, MACHINE_LAYER, Origin, Setting, Values

_ENABLED = "continual.enabled"
_PATH = "data.path"
_FILES = "download.files"
_FOLDER = "download.folder"
VARIABLES = "download.variables"


def check_continual(values: Values) -> Iterator[Diagnostic]:
    """Settings that contradict `continual.enabled`."""
    if not values[_ENABLED].value:
        return
    path = values[_PATH].value if _PATH in values else None
    folder = Path(str(path)).expanduser()
    is_coming = not folder.exists() and will_download(values, str(path))
    if path is None or not (folder.is_dir() or is_coming):
        yield _contradiction(
            values,
            _PATH,
            "is not a folder: new files cannot arrive there",
            "a folder; training starts with its files",
            "--data FOLDER" if path is None or not folder.is_file() else _folder_line(Path(path)),
        )
    if not values["save.last"].value:
        problem = "saves no checkpoint that the next experience can start from"
        fix = errors.fix_line("save.last", values["save.last"].origin, "true")
        yield _contradiction(values, "save.last", problem, "true", fix)
    if values["eval.test"].value:
        problem = "evaluates at the end of a run; continual learning measures forgetting instead"
        yield _contradiction(values, "eval.test", problem, "false")
    if "data.control" in values and values["data.control"].value != "real":
        problem = "is a control run, which ends with its result"
        yield _contradiction(values, "data.control", problem, "real")
    if "data.fold" in values and isinstance(values["data.fold"].value, str):
        problem = "is a fold of the groups there are; in continual learning more arrive"
        yield _contradiction(values, "data.fold", problem, "null")
    if values["mode"].value == "staged" or values["stages"].value:
        key = "stages" if values["stages"].value else "mode"
        problem = "trains in stages, which continual learning does not support"
        yield _contradiction(values, key, problem, "another mode")


def _folder_line(file: Path) -> str:
    """The line to watch the folder of a file; a new one if runs are written below that folder."""
    here, parent = Path.cwd(), file.absolute().parent
    if parent != here and parent not in here.parents:
        return f"--data {shlex.quote(str(file.parent))}"
    old, new = shlex.quote(str(file)), shlex.quote(f"{file.stem}_data")
    return f"mkdir {new} && mv {old} {new}  and then  --data {new}"


def _contradiction(
    values: Values, key: str, problem: str, allowed: str, fix: str | None = None
) -> Diagnostic:
    enabled = values[_ENABLED].origin
    value = values.get(key, Setting(None, enabled))
    return Diagnostic(
        f"{key} {shown(value.value)} {problem}",
        key=key,
        value=value.value,
        where=errors.where(key if key in values else _ENABLED, value.origin),
        allowed=f"{allowed}, with {errors.where(_ENABLED, enabled)}",
        fix=fix,
    )


def check_launcher(source: str, values: Values) -> Iterator[Diagnostic]:
    """Refuse torchrun and srun (`source`): nothing is left to watch the folder after the ranks."""
    yield errors.about_value(
        values,
        _ENABLED,
        f"cannot run under {source}: the processes that it started end after the first data",
        allowed=f"without {source}: Gearshift starts the processes of one machine itself",
        fix="--nproc N  instead",
    )


def check_run_folder(folder: Path, values: Values) -> None:
    """Raise SettingsError for a run folder inside the watched one: it would be read as data."""
    path = values[_PATH].value
    if folder.resolve().is_relative_to(Path(path).expanduser().resolve()):
        parts = {"allowed": "a run folder elsewhere", "fix": "--out DIR  outside of it"}
        message = f"the run folder {folder} is inside the watched folder {path}"
        raise SettingsError([errors.about(values, _PATH, message, **parts)])


def point_data_path(values: dict[str, Setting]) -> list[str]:
    """Set `data.path` to the files to download, unless the user set it; gives lines to announce.

    Continual learning watches a folder: a single file is downloaded into one of its own, and files
    beside the user's `data.path` are downloaded into it.
    """
    downloads = declared_targets(values)
    if not downloads or _PATH not in values or not all(target.name for target in downloads):
        return []  # a missing name is reported as an error
    users = values[_PATH].value if values[_PATH].is_of_user else None
    folder, is_one = values[_FOLDER].value, len(downloads) == 1
    path = str(downloads[0].path if is_one else downloads[0].folder)
    if values[_ENABLED].value and users is not None:
        folder = folder if will_download(values, users) else users
    elif values[_ENABLED].value and is_one and downloads[0].kind not in ("zip", "tar"):
        path = folder = folder or str(Path(FOLDER, downloads[0].path.stem))
    origin = Origin(MACHINE_LAYER, _fetch_origin(values))
    lines = []
    if folder != values[_FOLDER].value:
        values[_FOLDER] = values[_FOLDER].overridden(folder, origin)
        lines = [f"{_FOLDER}: {folder}, the folder that {_ENABLED} watches"]
    if users is None:
        values[_PATH] = values[_PATH].overridden(path, origin)
        lines.append(f"{_PATH}: {path}, from {origin.where}")
    return lines


def will_download(values: Values, path: str) -> bool:
    """Whether `path` is in the download folder, so that it need not exist yet."""
    folders = {target.folder for target in declared_targets(values)}
    return bool(values["download.fetch"].value) and any(map(Path(path).is_relative_to, folders))


def check_download(values: Values) -> Iterator[Diagnostic]:
    """Variables that a file allows, and files that are not declared, are not downloaded, have no
    name, or one local path."""
    variables = values[VARIABLES]
    if variables.value and variables.origin.layer != CLI_LAYER:
        yield errors.about_value(
            values,
            VARIABLES,
            "is not on the command line: a file cannot allow itself to send variables",
            fix=f"remove it, and type  {errors.line('--set', VARIABLES, variables.value)}",
        )
    is_fetched, files = values["download.fetch"].value, values[_FILES]
    if is_fetched and not files.value:
        example = "download: {files: [https://example.org/data.zip]}"
        yield Diagnostic(
            f"{_fetch_origin(values)}: download.files declares no URL",
            key=_FILES,
            where=_fetch_origin(values),
            allowed=ALLOWED_FILES,
            fix=f"put into a settings file  {example}  and name it with  --config FILE",
        )
    is_unused = not is_fetched and files.is_set_by_user
    if is_unused and _PATH in values and not values[_PATH].is_of_user:
        yield errors.about(
            values,
            _FILES,
            f"download.files is declared but not downloaded: the run would train on {values[_PATH].value}",
            fix="--download-data  or name existing data with  --data PATH",
            severity="warning",
        )
    seen: set[str] = set()
    for index, target in enumerate(declared_targets(values)):
        problem, path = None, target.path.name.casefold()
        if not target.name:
            problem = "does not end with a file name"
        elif path in seen:
            problem = f"has the local path {target.path}, like another file"
        if problem is not None:
            yield errors.about(
                values,
                _FILES,
                f"download.files[{index}].url '{target.file.url}' {problem}",
                value=target.file.url,
                fix=f"give it a name: write  {{url: {target.file.url}, name: data-{index}.zip}}",
            )
        seen.add(path)


def declared_targets(values: Values) -> list[DownloadTarget]:
    """Every file of `download.files` with its paths, whether it is to be fetched or not."""
    section = {name: values[f"download.{name}"].value for name in Download.model_fields}
    return targets(Download.model_validate(section))


def _fetch_origin(values: Values) -> str:
    """The option, or the line of a file, that requests the download."""
    return errors.where("download.fetch", values["download.fetch"].origin)


Kind = Literal["zip", "tar", "gz", "bz2", "xz"]
"""zip and tar are unpacked to a folder; the others, one compressed file, to that file."""
FOLDER = "downloads"
_SUFFIXES: dict[str, Kind] = {
    **{".tar.gz": "tar", ".tar.bz2": "tar", ".tar.xz": "tar", ".tar": "tar", ".tgz": "tar"},
    **{".tbz2": "tar", ".txz": "tar", ".zip": "zip", ".gz": "gz", ".bz2": "bz2", ".xz": "xz"},
}
"""Of archives, the longer ones first."""


@dataclass(frozen=True)
class DownloadTarget:
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
        return self.folder / ".fetch"


def targets(download: Download) -> list[DownloadTarget]:
    """Every declared file with its paths, without access to the disk."""
    names = [file.name or safe_name(redaction.file_name(file.url)) for file in download.files]
    folder = Path(FOLDER)
    if download.folder:
        folder = Path(download.folder).expanduser()
    elif len(names) > 1:
        first = Path(_split_suffix(names[0])[0]).stem
        folder = Path(FOLDER, f"{first}-and-{len(names) - 1}-more")
    files = zip(download.files, names, strict=True)
    return [DownloadTarget(file, name, folder) for file, name in files]


def _split_suffix(name: str) -> tuple[str, Kind | None]:
    """The name without the suffix of an archive, and the kind of archive; None: it is none."""
    for suffix, kind in _SUFFIXES.items():
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], kind
    return name, None
