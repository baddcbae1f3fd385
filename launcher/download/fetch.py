"""Download of the files that settings declare, unless they exist already."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from launcher.base import disk, environment, redaction
from launcher.base.diagnostics import PROGRAM, FetchError, SettingsError
from launcher.config.feature_checks import DownloadTarget, targets
from launcher.config.feature_settings import Download
from launcher.download.archive import ArchiveError, unpack
from launcher.download.console import DownloadProgress, Draw, Print, console
from launcher.download.transfer import (
    DownloadRecord,
    PartialFile,
    Source,
    TransferOptions,
    local_source,
    read_record,
    settings_error,
    sha256_of,
    transfer,
)
from launcher.run_folder import lock
from slurm.environment import RankEnvironment
from training.logging.quantities import size
from training.storage import StorageError


@dataclass(frozen=True)
class Fetched:
    """A declared file that exists now."""

    path: Path
    """The file, or the folder that its archive was unpacked to."""
    record: DownloadRecord
    is_new: bool
    """Whether this call downloaded it."""


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
    options = TransferOptions(settings.retries, int(settings.max_gb * 10**9), print, draw, sleep)
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
        files = fetch(settings, print, draw)
        for fetched in files:
            if show_existing and not fetched.is_new:
                print(f"{fetched.path} exists already, as declared")
    return files


def _fetch(target: DownloadTarget, timeout_s: float, options: TransferOptions) -> Fetched:
    try:
        if (record := _find(target)) is not None:  # also in a read-only folder
            return Fetched(target.path, record, is_new=False)
        disk.check_writable(
            target.folder,
            f"download.files: {target.file.url}",
            prefix=f"cannot write {target.folder}: ",
            allowed="a folder that this user may write to: download.folder, or --out of data fetch",
        )
        lock_name = f"{target.name}.lock"
        with disk.new_parents(target.state / lock_name):
            try:
                with lock.hold(target.state, math.inf, lock_name):
                    return _fetch_locked(target, timeout_s, options)
            except SettingsError:  # an invalid download leaves nothing
                if [path.name for path in target.state.iterdir()] == [lock_name]:
                    (target.state / lock_name).unlink()
                raise
    except (StorageError, OSError) as error:
        cause = error.error if isinstance(error, StorageError) else error
        message = f"cannot write {cause.filename or target.folder}: {cause.strerror or cause}"
        fix = "free disk space or change the permissions, or set  --set download.folder=DIR"
        raise FetchError(message, str(target.file.url), fix) from error


def _fetch_locked(target: DownloadTarget, timeout_s: float, options: TransferOptions) -> Fetched:
    if (record := _find(target)) is not None:  # another process was first
        return Fetched(target.path, record, is_new=False)
    with _source(target, timeout_s) as source, PartialFile(target) as part:
        record = _download(target, source, options, part)
        return Fetched(target.path, record, is_new=True)


def _download(
    target: DownloadTarget, source: Source, options: TransferOptions, part: PartialFile
) -> DownloadRecord:
    resumed = f", resuming after {size(part.size)}" if part.size else ""
    options.print(f"{target.path}: downloading {target.file.url}{resumed}")
    try:
        transfer(target, source, options, part)
    except KeyboardInterrupt:
        if part.size:
            options.print(f"{target.name}: {size(part.size)} are kept; the same command resumes")
        raise
    record = _move_into_place(target, part, options)
    add = f"; to check it the next time, write  sha256: {part.sha256}"
    checked = add if target.file.sha256 is None else ", checksum correct"
    options.print(f"{target.path}: {size(part.size)} downloaded{checked}")
    return record


def _source(target: DownloadTarget, timeout_s: float) -> AbstractContextManager[Source]:
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


def _find(target: DownloadTarget) -> DownloadRecord | None:
    """The record of the file at the target's path; None if it has to be downloaded.

    Raises SettingsError if another file is there: files of the user are never replaced. Reads the
    disk.
    """
    path, url = target.path, str(target.file.url)
    if not path.exists():
        return None
    declared = target.file.sha256 or ""
    copied_by_user = DownloadRecord(url, None, declared)
    record = read_record(_record_path(target)) or copied_by_user
    now = record.of(path)
    if now.stamp != record.stamp:
        content = record.content_sha256 if target.kind else record.sha256
        if not content or sha256_of(path).hexdigest() != content:
            raise _occupied(target, "is not the declared file, or was changed")
        record = now if target.kind else replace(now, size=path.stat().st_size)
        with suppress(OSError):  # a read-only folder: the file is read again the next time
            target.state.mkdir(exist_ok=True)
            record.write(_record_path(target))
    if declared not in ("", record.sha256):
        raise _occupied(target, f"has the checksum {record.sha256}, not the declared one")
    if not declared and record.url != url:
        raise _occupied(target, f"was downloaded from {record.url}")
    return record


def _occupied(target: DownloadTarget, problem: str) -> SettingsError:
    path = shlex.quote(str(target.path))
    return settings_error(
        f"{target.path} {problem}",
        target.file.url,
        fix=f"--set download.folder=DIR  for another folder, or  rm -r {path}",
    )


def _record_path(target: DownloadTarget) -> Path:
    return target.state / f"{target.path.name}.record.json"


def _move_into_place(
    target: DownloadTarget, part: PartialFile, options: TransferOptions
) -> DownloadRecord:
    """Move or unpack `part` to `target.path`, completely or not at all. Touches the disk.

    Raises SettingsError if the archive is broken or unsafe; nothing of it stays.
    """
    new = folder = target.state / f"{target.name}.unpacking"
    _remove(folder)  # of a start that was killed

    def progress(count: int) -> None:
        options.draw(DownloadProgress(target.name, count, None, is_unpacking=True))

    try:
        if target.kind is None:
            new = part.path
        else:
            unpack(part.path, target.kind, folder, options.max_bytes, progress)
        if new.is_dir():
            members = [path for path in new.iterdir() if path.name != "__MACOSX"]
            if len(members) == 1 and members[0].is_dir() and not members[0].is_symlink():
                [new] = members
        url = str(target.file.url)
        content = sha256_of(new).hexdigest() if target.kind and new.is_file() else ""
        record = DownloadRecord(url, part.version, part.sha256, part.size, content).of(new)
        # First: after a kill between the two lines the next start downloads again.
        record.write(_record_path(target))
        new.replace(target.path)
        record = record.of(target.path)  # the change time is that of the move
        record.write(_record_path(target))
    except ArchiveError as error:
        part.discard()
        fix = "unpack: no  to keep it as it is"
        raise settings_error(f"{target.name} {error}", str(target.file.url), fix=fix) from None
    finally:
        _remove(folder)
    part.discard()
    return record


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
