"""Download of the files that settings declare, unless they exist already."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.client import responses
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import requests
from pydantic import TypeAdapter
from requests import exceptions

from launcher.base import disk, environment, redaction
from launcher.base.diagnostics import PROGRAM, FetchError, SettingsError
from launcher.config.feature_checks import VARIABLES, DownloadTarget, targets
from launcher.config.feature_settings import Download
from launcher.download.archive import ArchiveError, unpack
from launcher.run_folder import lock
from models.common.data_files import identity, progress
from slurm.environment import RankEnvironment
from training.logging.outputs import PlainOutput
from training.logging.quantities import duration, size
from training.storage import StorageError, atomic_write, open_staged, read_regular

_PIECE_BYTES = 1 << 16
_BROKEN = (
    *(exceptions.ConnectionError, exceptions.Timeout),
    *(exceptions.ChunkedEncodingError, exceptions.ContentDecodingError),
)
_LOGIN = (
    "put user and password into ~/.netrc, or use  https://${USER}:${PASSWORD}@HOST/…  with "
    "environment variables"
)


@dataclass(frozen=True)
class Fetched:
    """A declared file that exists now, as it is recorded beside it."""

    path: Path
    """The file, or what its archive was unpacked to."""
    url: str
    """Without secrets."""
    sha256: str
    """Of the downloaded file, before it was unpacked."""
    size: int
    stamp: tuple[int, ...] = ()
    """The identity of a file that was not unpacked: as long as it stays, it is not read again."""
    is_new: bool = False
    """Whether this call downloaded it."""


class _Transient(Exception):
    """One attempt failed; a retry may succeed."""


def fetch(settings: Download, is_shown: bool = False, show_existing: bool = True) -> list[Fetched]:
    """Download all of `settings.files` that do not exist yet; gives all of them.

    A file is complete at its path, or does not exist there: it is downloaded under another name, checked,
    unpacked and moved. Of several processes that download one file, one does, and the others wait.
    `is_shown`: lines on stdout, of existing files if `show_existing`; progress on stderr.

    Raises SettingsError if the user can fix it (a URL, a checksum, an unsafe archive), FetchError if network,
    server or disk fail. Touches the network and the disk.
    """
    show = partial(PlainOutput(sys.stdout).write, "notice") if is_shown else str
    files = [_Fetch(target, settings, show).run() for target in targets(settings)]
    for fetched in files:
        if show_existing and not fetched.is_new:
            show(f"{fetched.path} exists already, as declared")
    return files


def fetch_for_run(settings: Any, ranks: RankEnvironment | None, is_shown: bool, is_main: bool) -> None:
    """Download the files of a run, if it requests that; `is_shown`: with progress.

    Of the processes that torchrun or srun started on one machine, one downloads; `is_main` marks
    the one that reports existing files. On several machines the files must exist, because the
    machines may share no disk. Raises SettingsError and FetchError.
    """
    if not settings.download.fetch:
        return
    several = ranks is not None and ranks.world_size > ranks.local_size
    for target in targets(settings.download) if several else ():
        if not target.path.exists():
            problem = "does not exist; on several machines the files are not downloaded"
            fix = f"{PROGRAM} data fetch  with the same settings first, on each disk"
            raise _error(f"{target.path} {problem}", target.file.url, fix=fix)
    fetch(settings.download, is_shown, is_main)


def _error(message: str, url: str, **parts: object) -> SettingsError:
    """An error that the user can fix: wrong URL, file or archive; `parts`: allowed, fix."""
    return SettingsError.of(message, value=url, where=str(url), **parts)


class _Fetch:
    """The download of one target into its place."""

    def __init__(self, target: DownloadTarget, settings: Download, show: Any) -> None:
        self._target, self._settings, self._show = target, settings, show
        self._url = target.file.url
        """As declared, without secrets where it is shown."""
        self._record = target.state / f"{target.path.name}.record.json"

    def run(self) -> Fetched:
        target = self._target
        try:
            if (found := self._find()) is not None:  # also in a read-only folder
                return found
            disk.check_writable(target.folder, "download.folder")
            name = f"{target.name}.lock"
            with disk.new_parents(target.state / name):
                try:
                    with lock.hold(target.state, math.inf, name):
                        return self._find() or self._download()  # another process may be first
                except SettingsError:  # an invalid download leaves nothing
                    if [path.name for path in target.state.iterdir()] == [name]:
                        (target.state / name).unlink()
                    raise
        except (StorageError, OSError) as error:
            cause = error.error if isinstance(error, StorageError) else error
            message = f"cannot write {cause.filename or target.folder}: {cause.strerror or cause}"
            fix = "free disk space or change the permissions, or set  --set download.folder=DIR"
            raise FetchError(message, str(self._url), fix) from error

    def _find(self) -> Fetched | None:
        """The file at the target's path; None if it has to be downloaded.

        Raises SettingsError if another file is there: files of the user are never replaced.
        """
        path, url, declared = self._target.path, str(self._url), self._target.file.sha256 or ""
        if not path.exists():
            return None
        try:
            record = TypeAdapter(Fetched).validate_json(read_regular(self._record))
        except (OSError, ValueError):  # the user may have copied the file
            record = Fetched(path, url, declared, path.stat().st_size, (-1,))
        stamp, problem = self._stamp(path), ""
        if stamp != record.stamp and (not stamp or _sha256(path) != record.sha256):
            problem = "is not the declared file, or was changed"
        elif declared not in ("", record.sha256):
            problem = f"has the checksum {record.sha256}, not the declared one"
        elif not declared and record.url != url:
            problem = f"was downloaded from {record.url}"
        if problem:
            fix = f"--set download.folder=DIR  for another folder, or  rm -r {shlex.quote(str(path))}"
            raise _error(f"{path} {problem}", self._url, fix=fix)
        if stamp != record.stamp:
            with suppress(OSError):  # a read-only folder: the file is read again the next time
                self._write_record(replace(record, stamp=stamp))
        return replace(record, path=path, is_new=False)

    def _stamp(self, path: Path) -> tuple[int, ...]:
        return identity(path) if self._target.kind is None and path.is_file() else ()

    def _write_record(self, record: Fetched) -> None:
        self._record.parent.mkdir(exist_ok=True)
        atomic_write(self._record, TypeAdapter(Fetched).dump_json(record, indent=1))

    def _download(self) -> Fetched:
        target, limit = self._target, int(self._settings.max_gb * 10**9)
        url, secrets = _with_variables(self._url, self._settings.variables)
        self._show(f"{target.path}: downloading {self._url}")
        part, folder = (target.state / f"{target.name}.{end}" for end in ("part", "unpacking"))
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
        try:
            sha256, total = self._transferred(url, secrets, part)
            new = part
            if target.kind is not None:
                new = folder / target.path.name
                folder.mkdir()
                unpack(part, target.kind, new, limit)
            if new.is_dir():
                members = [path for path in new.iterdir() if path.name != "__MACOSX"]
                new = members[0] if len(members) == 1 and members[0].is_dir() else new
            record = Fetched(target.path, str(self._url), sha256, total, self._stamp(new), True)
            self._write_record(record)  # first: after a kill the next start downloads again
            new.replace(target.path)
        except ArchiveError as error:
            fix = "unpack: no  to keep it as it is"
            raise _error(f"{target.name} {error}", self._url, fix=fix) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            part.unlink(missing_ok=True)
        add = f"; to check it the next time, write  sha256: {sha256}"
        checked = add if target.file.sha256 is None else ", checksum correct"
        self._show(f"{target.path}: {size(total)} downloaded{checked}")
        return record

    def _transferred(self, url: str, secrets: Sequence[str], part: Path) -> tuple[str, int]:
        """Transfer `url` to the file `part`, again after a broken connection; SHA-256 and size."""
        name, retries, cause = self._target.name, self._settings.retries, ""
        for number in range(retries + 1):
            try:
                with self._opened(url, secrets) as (total, pieces):
                    return self._written(part, total, pieces)
            except exceptions.SSLError as error:
                fix = "put the certificate of its authority into REQUESTS_CA_BUNDLE=FILE"
                message = f"no secure connection to the server: {_reason(error)}"
                raise _error(message, self._url, fix=fix) from None
            except (_Transient, *_BROKEN) as error:
                cause = _reason(error)
            except (ValueError, exceptions.TooManyRedirects):  # no host, or another scheme
                message = "this URL, or the one it redirects to, is not a usable http or https URL"
                raise _error(message, self._url) from None
            if number < retries:
                wait_s = min(60.0, 2.0**number)
                self._show(f"{name}: {cause}; again in {duration(wait_s)}")
                time.sleep(wait_s)
        raise FetchError(f"cannot download {name}: {cause}", self._url, "run the same command again later")

    @contextmanager
    def _opened(self, url: str, secrets: Sequence[str]) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """The size of the file, None: unknown; and its bytes. Raises _Transient, SettingsError."""
        if urlsplit(url).scheme == "file":
            path = Path(url2pathname(urlsplit(url).path))
            if not path.is_file():
                fix = "leave out --download-data  and type  --data PATH  for a folder"
                raise _error("cannot read the file: it is none", self._url, fix=fix)
            with path.open("rb") as file:
                yield path.stat().st_size, iter(partial(file.read, _PIECE_BYTES), b"")
            return
        headers = {"User-Agent": "gearshift", "Accept-Encoding": "identity"}
        with requests.Session() as session:
            session.max_redirects = 10
            session.hooks["response"].append(partial(check_redirect, self._url, secrets))
            with session.get(url, headers=headers, stream=True, timeout=self._settings.timeout_s) as response:
                status = response.status_code
                message = f"the server responds {status} {responses.get(status, '')}".rstrip()
                if status in (408, 425, 429) or 500 <= status < 600:
                    raise _Transient(message)
                if status != 200:
                    fix = _LOGIN if status in (401, 403) else "check whether the URL opens in a browser"
                    raise _error(message, self._url, fix=fix)
                length = response.headers.get("Content-Length", "")
                is_known = length.isdecimal() and "Transfer-Encoding" not in response.headers
                yield int(length) if is_known else None, response.iter_content(_PIECE_BYTES)

    def _written(self, part: Path, total: int | None, pieces: Iterator[bytes]) -> tuple[str, int]:
        """Write the `pieces` to `part`; SHA-256 and size, which are those that were declared."""
        name, file, done, digest = self._target.name, self._target.file, 0, hashlib.sha256()

        def check(key: str, value: object, declared: object) -> None:
            if declared is not None and value != declared:
                message = f"{name} has {key} {value}: not the declared one"
                fix = f"check the URL; if the file changed, set  {key}: {value}"
                raise _error(message, self._url, allowed=str(declared), fix=fix)

        if total is not None:
            check("size", total, file.size)
        total_mb = None if total is None else total // 10**6
        with open_staged(part) as out, progress(f"{name}, MB", total_mb) as update:
            for piece in chain([b""], pieces):
                done += len(piece)
                if max(done, total or 0) > self._settings.max_gb * 10**9:
                    message = f"{name} has {size(max(done, total or 0))} or more"
                    allowed = f"at most {self._settings.max_gb:g} GB (download.max_gb)"
                    raise _error(message, self._url, allowed=allowed)
                digest.update(piece)
                out.write(piece)
                update(done // 10**6)
        if done < (total or 0):
            raise _Transient(f"only {done} of {total} bytes arrived")
        check("size", done, file.size)
        check("sha256", digest.hexdigest(), file.sha256)
        return digest.hexdigest(), done


def check_redirect(shown: str, secrets: Sequence[str], response: Any, **_: object) -> None:
    """Refuse a redirect from https to http, and one of a secret to another host.

    requests drops the password there. `shown`: the declared URL. Raises SettingsError.
    """
    new = urljoin(response.url, response.headers.get("Location", ""))
    if response.url.startswith("https:") and new.startswith("http:"):
        raise _error("the server redirects from https to http", shown)
    hosts = {urlsplit(url).hostname or "" for url in (response.url, new)}
    if len(hosts) == 1 or all(map(redaction.is_here, hosts)):
        return
    values = "|".join(re.escape(value) for value in secrets if value)
    if values and re.search(rf"(?<!\w)({values})(?!\w)", unquote(new)):
        raise _error("the server redirects to another host with a variable of the URL", shown)


def _with_variables(shown: str, allowed: Sequence[str]) -> tuple[str, list[str]]:
    """The URL with its variables replaced, and their values. Raises SettingsError.

    Only those that the user allows are sent, and nobody between here and the host can read them.
    """
    text = shown.unredacted if isinstance(shown, redaction.Url) else shown
    names, variables = redaction.variables_of(text), environment.variables()
    if refused := [name for name in names if name not in allowed]:
        raise _error(
            f"the URL uses the environment variable {refused[0]}, which the command line does not allow",
            shown,
            fix=f"--set {VARIABLES}={','.join(dict.fromkeys([*allowed, *names]))}",
        )
    if unset := [name for name in names if name not in variables]:
        message = f"the URL uses the environment variable {unset[0]}, which is not set"
        raise _error(message, shown)
    url = redaction.expand_variables(text, variables)
    if names and not redaction.is_private(url):
        message = "the URL would send an environment variable without encryption"
        raise _error(message, shown, allowed="https, or http to this machine")
    return url, [variables[name] for name in names]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(partial(file.read, _PIECE_BYTES), b""):
            digest.update(piece)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """Why a transfer failed, without the URL, which may contain a secret."""
    if isinstance(error, _Transient):
        return str(error)
    if "timed out" in str(error):
        return "the server does not respond"
    causes = re.findall(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return causes[-1].lower() if causes else f"the connection broke ({type(error).__name__})"
