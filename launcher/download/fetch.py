"""Download of the files that settings declare, unless they exist already."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from launcher.base import environment, redaction
from launcher.base.diagnostics import PROGRAM, SettingsError
from launcher.config.feature_checks import Target, targets
from launcher.config.feature_settings import Download
from launcher.download.archive import ArchiveError, unpack
from launcher.download.console import Draw, Print, Progress, console
from launcher.download.transfer import (
    FetchError,
    Options,
    Part,
    Source,
    local_source,
    read_record,
    settings_error,
    sha256_of,
    transfer,
    write_record,
)
from launcher.run_folder import lock
from slurm.environment import RankEnvironment
from training.logging.quantities import size
from training.storage import StorageError

_MACOS_METADATA = "__MACOSX"


@dataclass(frozen=True)
class Fetched:
    """A declared file that exists now."""

    name: str
    url: str
    """Without secrets."""
    path: Path
    """The file, or the folder that its archive was unpacked to."""
    sha256: str
    """Of the downloaded file, before it was unpacked."""
    size: int
    """Bytes of the downloaded file."""
    is_new: bool
    """Whether this call downloaded it."""


@dataclass(frozen=True)
class _Record:
    """What is stored about a downloaded file."""

    url: str
    sha256: str
    size: int
    mtime_ns: int
    """Of the local file; 0 for a folder."""


def fetch(
    settings: Download,
    print: Print = lambda text: None,
    draw: Draw = lambda progress: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Download all of `settings.files` that do not exist yet; gives all of them.

    A file is complete at its path, or does not exist there: it is downloaded under another name,
    checked, unpacked and moved. After a failure or Ctrl-C the next call resumes. Of several
    processes that download one file, one does, and the others wait.

    Raises SettingsError if the user can fix it (a URL, a checksum, an unsafe archive), FetchError
    if network, server or disk fail. Touches the network and the disk.
    """
    options = Options(settings.retries, int(settings.max_gb * 10**9), print, draw, sleep)
    return [_fetch(target, settings.timeout_s, options) for target in targets(settings)]


def fetch_for_run(
    settings: Any, ranks: RankEnvironment | None, is_shown: bool, is_main: bool
) -> None:
    """Download the files of a run, if it requests that; `is_shown`: with progress on stdout.

    Of the processes that torchrun or srun started on one machine, one downloads; `is_main` marks
    the one that reports existing files. On several machines the files must exist, because the
    machines may share no disk. Raises SettingsError and FetchError.
    """
    if not settings.download.fetch:
        return
    if ranks is not None and ranks.world_size > ranks.local_size:
        for target in targets(settings.download):
            if not target.path.exists():
                raise settings_error(
                    f"{target.path} does not exist; on several machines of {ranks.source} the "
                    "files are not downloaded",
                    str(target.file.url),
                    allowed="--download-data on one machine, or existing files",
                    fix=f"{PROGRAM} data fetch  with the same settings first, on each disk",
                )
    if is_shown:
        fetch_with_progress(settings.download, is_main)
    else:
        fetch(settings.download)


def fetch_with_progress(settings: Download, show_existing: bool = True) -> list[Fetched]:
    """`fetch` with progress on stdout, and a line for each existing file."""
    with console(sys.stdout) as (print, draw):
        found = fetch(settings, print, draw)
        for fetched in found:
            if show_existing and not fetched.is_new:
                print(f"{fetched.path} exists already, as declared")
    return found


def _fetch(target: Target, timeout_s: float, options: Options) -> Fetched:
    try:
        if (record := _find(target)) is not None:  # also in a read-only folder
            return _fetched(target, record, is_new=False)
        target.state.mkdir(parents=True, exist_ok=True)
        with lock.hold(target.state, math.inf, f"{target.name}.lock"):
            if (record := _find(target)) is not None:  # another process was first
                return _fetched(target, record, is_new=False)
            with _source(target, timeout_s) as source, Part(target) as part:
                return _fetched(target, _download(target, source, options, part), is_new=True)
    except (StorageError, OSError) as error:
        cause = error.error if isinstance(error, StorageError) else error
        message = f"cannot write {cause.filename or target.folder}: {cause.strerror or cause}"
        fix = "free disk space or change the permissions, or set  download.folder: DIR"
        raise FetchError(message, str(target.file.url), fix) from error


def _fetched(target: Target, record: _Record, is_new: bool) -> Fetched:
    url = str(target.file.url)
    return Fetched(target.name, url, target.path, record.sha256, record.size, is_new)


def _download(target: Target, source: Source, options: Options, part: Part) -> _Record:
    resumed = f", resuming after {size(part.size)}" if part.size else ""
    options.print(f"{target.path}: downloading {target.file.url}{resumed}")
    try:
        transfer(target, source, options, part)
    except KeyboardInterrupt:
        if part.size:
            kept = f"{size(part.size)} are kept; the same command resumes"
            options.print(f"{target.name}: {kept}")
        raise
    record = _move_into_place(target, part, options)
    checked = f"; to check it the next time, write  sha256: {part.sha256}"
    if target.file.sha256 is not None:
        checked = ", checksum correct"
    options.print(f"{target.path}: {size(part.size)} downloaded{checked}")
    return record


def _source(target: Target, timeout_s: float) -> AbstractContextManager[Source]:
    shown = target.file.url
    url = shown.unredacted if isinstance(shown, redaction.Url) else shown
    if redaction.MASK in url:
        raise settings_error(
            "the secrets of this URL were removed when the settings were saved",
            shown,
            fix="the URL with its secrets again; or put user and password into ~/.netrc, or name "
            "an environment variable, ${NAME}, in the URL",
        )
    try:
        url = redaction.expand_variables(url, environment.variables())
    except KeyError as missing:
        message = f"the URL uses the environment variable {missing.args[0]}, which is not set"
        raise settings_error(message, shown) from None
    if urlsplit(url).scheme == "file":
        return nullcontext(local_source(url))
    # Imported here: requests takes a third of a second, and most starts download nothing.
    from launcher.download.web import WebSource

    return WebSource(url, str(shown), timeout_s)


def _find(target: Target) -> _Record | None:
    """The record of the file at the target's path; None if it has to be downloaded.

    Raises SettingsError if another file is there: files of the user are never replaced. Reads the
    disk.
    """
    if not target.path.exists():
        return None
    declared = (target.file.sha256 or "").lower()
    record = read_record(_Record, _record_path(target))
    if record is None:
        return _adopt(target, declared)
    if _mtime_ns(target.path) != record.mtime_ns:
        if target.kind is not None or sha256_of(target.path).hexdigest() != record.sha256:
            raise _occupied(target, "was changed after it was downloaded")
        record = _remember(target, replace(record, mtime_ns=_mtime_ns(target.path)))
    if declared == record.sha256:
        return record
    if record.url != target.file.url:
        raise _occupied(target, f"was downloaded from {record.url}")
    return None if declared else record


def _adopt(target: Target, declared: str) -> _Record:
    """The record of a file that the user put there, if it has the declared checksum."""
    if target.kind is not None or not declared or not target.path.is_file():
        raise _occupied(target, "exists, and was not downloaded by this program")
    if (found := sha256_of(target.path).hexdigest()) != declared:
        raise _occupied(target, f"exists, with the checksum {found}")
    about = target.path.stat()
    record = _Record(str(target.file.url), found, about.st_size, about.st_mtime_ns)
    return _remember(target, record)


def _remember(target: Target, record: _Record) -> _Record:
    with suppress(OSError):  # a read-only folder: the file is read again the next time
        target.state.mkdir(exist_ok=True)
        write_record(_record_path(target), record)
    return record


def _occupied(target: Target, problem: str) -> SettingsError:
    return settings_error(
        f"{target.path} {problem}",
        target.file.url,
        fix=f"download.folder: DIR  for another folder, or remove {target.path}",
    )


def _record_path(target: Target) -> Path:
    return target.state / f"{target.path.name}.record.json"


def _mtime_ns(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _move_into_place(target: Target, part: Part, options: Options) -> _Record:
    """Move or unpack `part` to `target.path`, completely or not at all. Touches the disk.

    Raises SettingsError if the archive is broken or unsafe; nothing of it stays.
    """
    new = part.path
    if target.kind is not None:
        new = target.state / f"{target.name}.unpacking"
        _remove(new)  # of a start that was killed

    def progress(count: int) -> None:
        options.draw(Progress(target.name, count, None, count, is_unpacking=True))

    try:
        if target.kind is not None:
            unpack(part.path, target.kind, new, options.max_bytes, progress)
        found = (
            [path for path in new.iterdir() if path.name != _MACOS_METADATA] if new.is_dir() else []
        )
        is_nested = len(found) == 1 and found[0].is_dir() and not found[0].is_symlink()
        record = _replace(target, part, found[0] if is_nested else new)
    except ArchiveError as error:
        part.discard()
        fix = "unpack: no  to keep it as it is"
        raise settings_error(f"{target.name} {error}", str(target.file.url), fix=fix) from None
    finally:
        if target.kind is not None:
            _remove(new)
    part.discard()
    return record


def _replace(target: Target, part: Part, new: Path) -> _Record:
    """Move `new` to the target's path; after a kill at any line the next start recognizes it."""
    record = _Record(str(target.file.url), part.sha256, part.size, _mtime_ns(new))
    if not target.path.exists():
        write_record(_record_path(target), record)
        new.replace(target.path)
        return record
    old = target.state / f"{target.name}.old"
    _remove(old)
    if target.path.is_dir():  # no system replaces a folder atomically
        target.path.replace(old)
    new.replace(target.path)
    write_record(_record_path(target), record)
    _remove(old)
    return record


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
