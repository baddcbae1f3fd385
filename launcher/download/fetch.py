"""Download of the files that settings declare, unless they exist already."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from launcher.base import disk, environment, redaction
from launcher.base.diagnostics import PROGRAM, FetchError, SettingsError
from launcher.config import errors
from launcher.config.feature_checks import VARIABLES, DownloadTarget, targets
from launcher.config.feature_settings import Download
from launcher.download.archive import ArchiveError, unpack
from launcher.download.transfer import (
    DownloadRecord,
    Show,
    Transfer,
    read_record,
    settings_error,
    sha256_of,
)
from launcher.run_folder import lock
from models.common.data_files import progress
from slurm.environment import RankEnvironment
from training.logging.outputs import PlainOutput
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


def fetch(settings: Download, is_shown: bool = False, show_existing: bool = True) -> list[Fetched]:
    """Download all of `settings.files` that do not exist yet; gives all of them.

    A file is complete at its path, or does not exist there: it is downloaded under another name,
    checked, unpacked and moved. After a failure or Ctrl-C the next call resumes. Of several
    processes that download one file, one does, and the others wait.

    `is_shown`: lines on stdout, of existing files if `show_existing`; progress on stderr.

    Raises SettingsError if the user can fix it (a URL, a checksum, an unsafe archive), FetchError
    if network, server or disk fail. Touches the network and the disk.
    """
    show: Show = partial(PlainOutput(sys.stdout).write, "notice") if is_shown else str
    files = [_Fetch(target, settings, show).run() for target in targets(settings)]
    for fetched in files:
        if show_existing and not fetched.is_new:
            show(f"{fetched.path} exists already, as declared")
    return files


def fetch_for_run(
    settings: Any, ranks: RankEnvironment | None, is_shown: bool, is_main: bool
) -> None:
    """Download the files of a run, if it requests that; `is_shown`: with progress.

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
                    target.file.url,
                    allowed="--download-data on one machine, or existing files",
                    fix=f"{PROGRAM} data fetch  with the same settings first, on each disk",
                )
    fetch(settings.download, is_shown, is_main)


class _Fetch:
    """The download of one target into its place."""

    def __init__(self, target: DownloadTarget, settings: Download, show: Show) -> None:
        self._target, self._settings, self._show = target, settings, show
        self._record_path = target.state / f"{target.path.name}.record.json"

    def run(self) -> Fetched:
        target = self._target
        try:
            if (record := self._find()) is not None:  # also in a read-only folder
                return Fetched(target.path, record, is_new=False)
            disk.check_writable(target.folder, "download.folder")
            name = f"{target.name}.lock"
            with disk.new_parents(target.state / name):
                try:
                    with lock.hold(target.state, math.inf, name):
                        if (record := self._find()) is not None:  # another process was first
                            return Fetched(target.path, record, is_new=False)
                        return Fetched(target.path, self._download(), is_new=True)
                except SettingsError:  # an invalid download leaves nothing
                    if [path.name for path in target.state.iterdir()] == [name]:
                        (target.state / name).unlink()
                    raise
        except (StorageError, OSError) as error:
            cause = error.error if isinstance(error, StorageError) else error
            message = f"cannot write {cause.filename or target.folder}: {cause.strerror or cause}"
            fix = "free disk space or change the permissions, or set  --set download.folder=DIR"
            raise FetchError(message, str(target.file.url), fix) from error

    def _find(self) -> DownloadRecord | None:
        """The record of the file at the target's path; None if it has to be downloaded.

        Raises SettingsError if another file is there: files of the user are never replaced.
        """
        target, path = self._target, self._target.path
        url, declared = str(target.file.url), target.file.sha256 or ""
        if not path.exists():
            return None
        # Without a record: the user may have copied it.
        record = read_record(self._record_path) or DownloadRecord(url, None, declared)
        now = record.of(path)
        if now != record:
            content = record.content_sha256 if target.kind else record.sha256
            if not content or sha256_of(path) != content:
                raise self._occupied("is not the declared file, or was changed")
            record = now if target.kind else replace(now, size=path.stat().st_size)
            with suppress(OSError):  # a read-only folder: the file is read again the next time
                target.state.mkdir(exist_ok=True)
                record.write(self._record_path)
        if declared not in ("", record.sha256):
            raise self._occupied(f"has the checksum {record.sha256}, not the declared one")
        if not declared and record.url != url:
            raise self._occupied(f"was downloaded from {record.url}")
        return record

    def _occupied(self, problem: str) -> SettingsError:
        path = self._target.path
        remove = f"rm -r {shlex.quote(str(path))}"
        fix = f"--set download.folder=DIR  for another folder, or  {remove}"
        return settings_error(f"{path} {problem}", self._target.file.url, fix=fix)

    def _download(self) -> DownloadRecord:
        target = self._target
        shown = target.file.url
        url, secrets = _with_variables(shown, self._settings.variables)
        transfer = Transfer(target, self._settings, self._show)
        resumed = f", resuming after {size(transfer.size)}" if transfer.size else ""
        self._show(f"{target.path}: downloading {shown}{resumed}")
        try:
            sha256, total = transfer.run(url, secrets), transfer.size
            record = DownloadRecord(str(target.file.url), transfer.version, sha256, total)
            record = self._move_into_place(transfer.path, record)
            transfer.discard()
        except ArchiveError as error:
            transfer.discard()
            fix = "unpack: no  to keep it as it is"
            raise settings_error(f"{target.name} {error}", target.file.url, fix=fix) from None
        finally:
            if not transfer.size:
                transfer.discard()
        add = f"; to check it the next time, write  sha256: {sha256}"
        checked = add if target.file.sha256 is None else ", checksum correct"
        self._show(f"{target.path}: {size(total)} downloaded{checked}")
        return record

    def _move_into_place(self, part: Path, record: DownloadRecord) -> DownloadRecord:
        """Move or unpack `part` to the target's path, completely or not at all; its final record.

        Raises ArchiveError if the archive is broken or unsafe; nothing of it stays.
        """
        target, new = self._target, part
        folder = target.state / f"{target.name}.unpacking"
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
        try:
            if target.kind is not None:
                folder.mkdir()
                new = folder / target.path.name
                with progress(f"unpacking {target.name}, bytes", None) as update:
                    unpack(part, target.kind, new, int(self._settings.max_gb * 10**9), update)
            if new.is_dir():
                members = [path for path in new.iterdir() if path.name != "__MACOSX"]
                if len(members) == 1 and members[0].is_dir() and not members[0].is_symlink():
                    [new] = members
            elif target.kind is not None:
                record = replace(record, content_sha256=sha256_of(new))
            # First: after a kill between the two lines the next start downloads again.
            record.of(new).write(self._record_path)
            new.replace(target.path)
            record = record.of(target.path)  # the change time is that of the move
            record.write(self._record_path)
            return record
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _with_variables(shown: str, allowed: Sequence[str]) -> tuple[str, list[str]]:
    """The URL with its variables replaced, and their values. Raises SettingsError.

    Only those that the user allows are sent, and nobody between here and the host can read them.
    """
    text = shown.unredacted if isinstance(shown, redaction.Url) else shown
    names, variables = redaction.variables_of(text), environment.variables()
    if refused := [name for name in names if name not in allowed]:
        raise settings_error(
            f"the URL uses the environment variable {refused[0]}, which the command line does not "
            "allow",
            shown,
            fix=errors.line("--set", VARIABLES, list(dict.fromkeys([*allowed, *names]))),
        )
    if unset := [name for name in names if name not in variables]:
        message = f"the URL uses the environment variable {unset[0]}, which is not set"
        raise settings_error(message, shown)
    url = redaction.expand_variables(text, variables)
    if names and not redaction.is_private(url):
        message = "the URL would send an environment variable without encryption"
        raise settings_error(message, shown, allowed="https, or http to this machine")
    return url, [variables[name] for name in names]
