"""Checks of the settings of continual learning and downloads; the files declared for download."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.base import redaction
from launcher.base.diagnostics import Diagnostic, shown
from launcher.config import errors, provenance
from launcher.config.feature_settings import ALLOWED_FILES, Download, File, safe_name
from launcher.config.provenance import MACHINE_LAYER, USER_LAYERS, Origin, Setting

_ENABLED = "continual.enabled"
_PATH = "data.path"
_FOLDER = "download.folder"


def check_continual(values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Settings that contradict `continual.enabled`."""
    if not values[_ENABLED].value:
        return
    path = values[_PATH].value if _PATH in values else None
    if not isinstance(path, str) or not _will_be_folder(values, path):
        is_file = isinstance(path, str) and Path(path).expanduser().is_file()
        yield _contradiction(
            values,
            _PATH,
            "is not a folder: new files cannot arrive there",
            "a folder; training starts with its files",
            _folder_line(Path(str(path))) if is_file else "--data FOLDER",
        )
    if not values["save.last"].value:
        yield _contradiction(
            values,
            "save.last",
            "saves no checkpoint that the next experience can start from",
            "true",
            errors.fix_line("save.last", values["save.last"].origin, "true"),
        )
    if values["eval.test"].value:
        problem = "evaluates at the end of a run; continual learning measures forgetting instead"
        yield _contradiction(values, "eval.test", problem, "false")
    control = values.get("data.control")
    if control is not None and control.value != "real":
        problem = "is a control run, which ends with its result"
        yield _contradiction(values, "data.control", problem, "real")
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


def _will_be_folder(values: Mapping[str, Setting], path: str) -> bool:
    folder = Path(path).expanduser()
    return folder.is_dir() or (not folder.exists() and will_download(values, path))


def _contradiction(
    values: Mapping[str, Setting], key: str, problem: str, allowed: str, fix: str | None = None
) -> Diagnostic:
    value = values.get(key)
    enabled_at = errors.where(_ENABLED, values[_ENABLED].origin)
    return Diagnostic(
        f"{key} {shown(value.value if value else None)} {problem}",
        key=key,
        value=value.value if value else None,
        where=errors.where(key, value.origin) if value else enabled_at,
        allowed=f"{allowed}, with {enabled_at}",
        fix=fix,
    )


def check_launcher(source: str, values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Refuse torchrun and srun (`source`): nothing is left to watch the folder after the ranks."""
    if values[_ENABLED].value:
        yield errors.about_value(
            values,
            _ENABLED,
            f"cannot run under {source}: the processes that it started end after the first data",
            allowed=f"without {source}: Gearshift starts the processes of one machine itself",
            fix="--nproc N  instead",
        )


def check_run_folder(folder: Path, values: Mapping[str, Setting]) -> Iterator[Diagnostic]:
    """Refuse a run folder inside the watched folder: it would be read as data."""
    path = values[_PATH].value if _PATH in values else None
    if not values[_ENABLED].value or not isinstance(path, str):
        return
    source = Path(path).expanduser().resolve()
    if source in folder.resolve().parents or source == folder.resolve():
        yield errors.about(
            values,
            _PATH,
            f"the run folder {folder} is inside the watched folder {path}",
            allowed="a run folder elsewhere",
            fix="--out DIR  outside of it",
        )


Values = Mapping[str, Setting]
OPTION = "--download-data"
_EXAMPLE = "download: {files: [https://example.org/data.zip]}"


def point_data_path(values: dict[str, Setting]) -> list[str]:
    """Set `data.path` to the files to download, unless the user set it; gives lines to announce.

    Continual learning watches a folder: a single file is downloaded into one of its own, and files
    beside the user's `data.path` are downloaded into it.
    """
    downloads = declared_targets(values)
    if not downloads or _PATH not in values or not all(target.name for target in downloads):
        return []  # a missing name is reported as an error
    users = values[_PATH].value if values[_PATH].origin.layer in USER_LAYERS else None
    folder, path = values[_FOLDER].value, data_path(downloads)
    if values[_ENABLED].value and users is not None:
        folder = folder if will_download(values, users) else users
    elif values[_ENABLED].value and len(downloads) == 1 and downloads[0].kind not in ("zip", "tar"):
        path = folder = folder or str(Path(FOLDER, downloads[0].path.stem))
    origin = Origin(MACHINE_LAYER, _fetch_origin(values))
    lines = []
    if folder != values[_FOLDER].value:
        values[_FOLDER] = provenance.overridden(values[_FOLDER], folder, origin)
        lines = [f"{_FOLDER}: {folder}, the folder that {_ENABLED} watches"]
    if users is None:
        values[_PATH] = provenance.overridden(values[_PATH], path, origin)
        lines.append(f"{_PATH}: {path}, from {origin.where}")
    return lines


def will_download(values: Values, path: str) -> bool:
    """Whether `path` is in the download folder, so that it need not exist yet."""
    if not values["download.fetch"].value:
        return False
    wanted = Path(path)
    return any(target.folder in (wanted, *wanted.parents) for target in declared_targets(values))


def check_download(values: Values) -> Iterator[Diagnostic]:
    """Problems of the declared files beyond those of single values."""
    files = values["download.files"]
    if values["download.fetch"].value and not files.value:
        yield Diagnostic(
            f"{_fetch_origin(values)}: download.files declares no URL",
            key="download.files",
            where=_fetch_origin(values),
            allowed=ALLOWED_FILES,
            fix=f"put into a settings file  {_EXAMPLE}  and name it with  --config FILE",
        )
    elif not values["download.fetch"].value:
        yield from _not_downloaded(values)
    yield from _name_clashes(values)


def _not_downloaded(values: Values) -> Iterator[Diagnostic]:
    """Warn if the user declares files, and the run would train on other data."""
    files = values["download.files"]
    if not provenance.is_set_by_user(files) or _PATH not in values:
        return
    if values[_PATH].origin.layer not in USER_LAYERS:
        yield errors.about(
            values,
            "download.files",
            "download.files is declared but not downloaded: the run would train on "
            f"{values[_PATH].value}",
            fix=f"{OPTION}  or name existing data with  --data PATH",
            severity="warning",
        )


def _name_clashes(values: Values) -> Iterator[Diagnostic]:
    """Files without a name, and files with the same local path."""
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
                "download.files",
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
_STATE = ".fetch"
_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_SUFFIXES: dict[str, Kind] = {
    ".zip": "zip",
    **dict.fromkeys(_TAR, "tar"),
    ".gz": "gz",
    ".bz2": "bz2",
    ".xz": "xz",
}


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
        return self.folder / _STATE


def targets(download: Download) -> list[DownloadTarget]:
    """Every declared file with its paths, without access to the disk."""
    names = [file.name or safe_name(redaction.file_name(file.url)) for file in download.files]
    if download.folder:
        folder = Path(download.folder).expanduser()
    elif len(names) <= 1:
        folder = Path(FOLDER)
    else:
        first = Path(_split_suffix(names[0])[0]).stem
        folder = Path(FOLDER, f"{first}-and-{len(names) - 1}-more")
    return [
        DownloadTarget(file, name, folder) for file, name in zip(download.files, names, strict=True)
    ]


def data_path(downloads: list[DownloadTarget]) -> str:
    """`data.path` of the targets: the only file, or the folder of several."""
    return str(downloads[0].path if len(downloads) == 1 else downloads[0].folder)


def _split_suffix(name: str) -> tuple[str, Kind | None]:
    """The name without the suffix of an archive, and the kind of archive; None: it is none."""
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], _SUFFIXES[suffix]
    return name, None
