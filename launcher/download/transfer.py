"""Transfer of one file: resume after broken connections, retries, size and checksum."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http.client import responses
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import requests
from pydantic import TypeAdapter
from requests import exceptions

from launcher.base.diagnostics import FetchError, SettingsError
from launcher.base.redaction import is_here
from launcher.config.feature_checks import DownloadTarget
from launcher.config.feature_settings import Download
from models.common.data_files import identity, progress
from training.logging.quantities import duration, size
from training.storage import atomic_write

Show = Callable[[str], object]
"""Prints a line."""
_PIECE_BYTES = 1 << 14
"""At most this much is lost if a connection breaks."""
_PROGRESS_BYTES = 1 << 20
"""An attempt that transfers this much resets the count of failures."""
_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_BROKEN = (
    *(exceptions.ConnectionError, exceptions.Timeout),
    *(exceptions.ChunkedEncodingError, exceptions.ContentDecodingError),
)
_LOGIN = (
    "put user and password into ~/.netrc, or use  https://${USER}:${PASSWORD}@HOST/…  with "
    "environment variables"
)


def settings_error(message: str, url: str, **parts: object) -> SettingsError:
    """An error that the user can fix: wrong URL, file or archive; `parts`: allowed, fix."""
    return SettingsError.of(message, value=url, where=str(url), **parts)


class Transient(Exception):
    """One attempt failed; a retry may succeed, after the wait that the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Mismatch(Transient):
    """The part on disk does not belong to the file on the server: it starts from byte 0."""

    def __init__(self) -> None:
        super().__init__("the file on the server is another version; restarting from byte 0")


@dataclass(frozen=True)
class DownloadRecord:
    """What is stored about a download: of a part URL and version, of a complete file all."""

    url: str
    """Without secrets."""
    version: str | None
    sha256: str = ""
    """Of the downloaded file, before it was unpacked."""
    size: int = 0
    content_sha256: str = ""
    """Of the file that was unpacked; empty: none was."""
    mtime_ns: int = -1
    """Of the local file; 0 for a folder."""
    ctime_ns: int = -1
    inode: int = -1

    def of(self, path: Path) -> DownloadRecord:
        """This record for the file at `path` as it is now. Reads the disk."""
        _, *times, inode = identity(path) if path.is_file() else (0, 0, 0, 0)
        return replace(self, mtime_ns=times[0], ctime_ns=times[1], inode=inode)

    def write(self, path: Path) -> None:
        """Write JSON, atomically. Touches the disk. Raises OSError."""
        atomic_write(path, TypeAdapter(DownloadRecord).dump_json(self, indent=1))


def read_record(path: Path) -> DownloadRecord | None:
    """A record that was written; None if it is missing or invalid. Reads the disk."""
    try:
        return TypeAdapter(DownloadRecord).validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError):
        return None


def sha256_of(path: Path) -> str:
    """The checksum of a file. Reads the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


class Transfer:
    """A declared file on its way into its part, `path`. Touches the network and the disk."""

    def __init__(self, target: DownloadTarget, settings: Download, show: Show) -> None:
        """A part of another URL is discarded."""
        self._target, self._settings, self._show = target, settings, show
        self.path = target.state / f"{target.name}.part"
        self._record_path = target.state / f"{target.name}.part.json"
        record = read_record(self._record_path)
        self._secrets: Sequence[str] = ()
        self.version: str | None = None
        self._is_resumed = False
        """Whether the bytes are from more than one response."""
        if record is not None and record.url == str(target.file.url):
            self.version = record.version
        else:
            self.discard()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def discard(self) -> None:
        """Remove the part and its record."""
        self.path.unlink(missing_ok=True)
        self._record_path.unlink(missing_ok=True)
        self._is_resumed = False

    def _error(self, message: str, **parts: object) -> SettingsError:
        return settings_error(message, self._target.file.url, **parts)

    def run(self, url: str, secrets: Sequence[str] = ()) -> str:
        """Transfer all bytes of `url`; gives their SHA-256.

        No redirect may carry the `secrets` in it to another host. Raises SettingsError if the file
        is not the declared one, FetchError if the transfer fails.
        """
        failures, self._secrets = 0, secrets
        while True:
            before = self.size
            try:
                if urlsplit(url).scheme == "file":
                    self._copy(Path(url2pathname(urlsplit(url).path)))
                else:
                    self._download(url)
                return self._checked()
            except Transient as error:
                failures = 1 if self.size - before >= _PROGRESS_BYTES else failures + 1
                if isinstance(error, Mismatch):
                    self.discard()
                self._wait(error, failures)

    def _wait(self, error: Transient, failures: int) -> None:
        """Wait before the next attempt. Raises FetchError after too many failures in a row."""
        name, retries = self._target.name, self._settings.retries
        too_long = error.wait_s > 600
        if failures > retries or too_long:
            waits = f", and asks to wait {duration(error.wait_s)}" if too_long else ""
            tried = "" if waits or failures == 1 else f", {failures} times in a row"
            kept = f"; {size(self.size)} are kept" if self.size else ""
            message = f"cannot download {name}: {error}{waits}{tried}{kept}"
            fix = "run the same command again later: it resumes"
            raise FetchError(message, self._target.file.url, fix)
        wait_s = max(min(60.0, 2.0 ** (failures - 1)) * random.uniform(0.5, 1), error.wait_s)
        attempt = f"attempt {failures + 1} of {retries + 1}"
        self._show(f"{name}: {error}; {attempt} in {duration(wait_s)}")
        time.sleep(wait_s)

    def _copy(self, path: Path) -> None:
        try:
            file = path.open("rb")
        except OSError as error:
            fix = "leave out --download-data  and type  --data PATH  for a folder"
            raise self._error(f"cannot read the file: {error.strerror or error}", fix=fix) from None
        with file:
            pieces = iter(partial(file.read, _PIECE_BYTES), b"")
            self._receive(0, path.stat().st_size, None, pieces)

    def _download(self, url: str) -> None:
        """One attempt; resumes only what a version or the checksum proves to be the same file."""
        if self.version is None and self._target.file.sha256 is None:
            self.discard()
        start = self.size
        headers = {"User-Agent": "gearshift", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.version is not None:
                headers["If-Range"] = self.version
        with requests.Session() as session:
            session.max_redirects = 10
            session.hooks["response"].append(self.check_redirect)
            timeout_s = self._settings.timeout_s
            try:
                with session.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
                    self._read(response, start)
            except exceptions.SSLError as error:
                message = f"no secure connection to the server: {_reason(error)}"
                fix = "put the certificate of its authority into REQUESTS_CA_BUNDLE=FILE"
                raise self._error(message, fix=fix) from None
            except _BROKEN as error:
                raise Transient(_reason(error)) from None
            except (ValueError, exceptions.TooManyRedirects):  # no host, or another scheme
                message = "this URL, or the one it redirects to, is not a usable http or https URL"
                raise self._error(message) from None

    def check_redirect(self, response: requests.Response, **_: object) -> None:
        """Refuse a redirect from https to http, and one of a secret to another host.

        requests drops the password there.
        """
        new = urljoin(response.url, response.headers.get("Location", ""))
        if response.url.startswith("https:") and new.startswith("http:"):
            raise self._error("the server redirects from https to http")
        hosts = {urlsplit(url).hostname or "" for url in (response.url, new)}
        if len(hosts) == 1 or all(map(is_here, hosts)):
            return
        values = "|".join(re.escape(value) for value in self._secrets if value)
        if values and re.search(rf"(?<!\w)({values})(?!\w)", unquote(new)):
            raise self._error("the server redirects to another host with a variable of the URL")

    def _read(self, response: requests.Response, start: int) -> None:
        status, headers = response.status_code, response.headers
        # A validator for If-Range is no weak entity tag. Source: RFC 9110, section 13.1.5.
        etag = headers.get("ETag", "W/")
        version = headers.get("Last-Modified") if etag.startswith("W/") else etag
        first, total = None, headers.get("Content-Length", "")
        if span := _RANGE.fullmatch(headers.get("Content-Range", "")):
            first, total = span.groups()
        if status == 416 and start:
            if total == str(start):  # nothing is missing
                return
            raise Mismatch
        if status not in (200, 206):
            message = f"the server responds {status} {responses.get(status, '')}".rstrip()
            if status in (408, 425, 429) or 500 <= status < 600:
                retry_after = headers.get("Retry-After", "")
                raise Transient(message, float(retry_after) if retry_after.isdecimal() else 0.0)
            fix = _LOGIN if status in (401, 403) else "check whether the URL opens in a browser"
            raise self._error(message, fix=fix)
        if status == 200:
            start = 0
        elif first != str(start) or not start or version not in (self.version, None):
            raise Mismatch
        if "chunked" in headers.get("Transfer-Encoding", "").lower() and not span:
            total = ""
        known = int(total) if total.isdecimal() else None
        self._receive(start, known, version, response.iter_content(_PIECE_BYTES))

    def _receive(
        self, start: int, total: int | None, version: str | None, pieces: Iterable[bytes]
    ) -> None:
        """Write the bytes from `start` on; `total`: of the whole file, None: unknown."""
        target, max_gb = self._target, self._settings.max_gb
        if total is not None:
            self._check("size", total, target.file.size)
            if total > max_gb * 10**9:
                allowed = f"at most {max_gb:g} GB (download.max_gb)"
                raise self._error(f"{target.name} has {size(total)}", allowed=allowed)
            left, free = total - start, shutil.disk_usage(target.state).free
            if left > free:
                message = f"{target.name} needs {size(left)} more; its disk has {size(free)} free"
                raise self._error(message, fix="--set download.folder=DIR  on another disk")
        self._is_resumed |= start > 0
        self.version = version
        DownloadRecord(str(target.file.url), version).write(self._record_path)
        done = start
        mode, total_mb = "ab" if start else "wb", None if total is None else total // 10**6
        with self.path.open(mode) as file, progress(f"{target.name}, MB", total_mb) as update:
            for piece in pieces:
                done += len(piece)
                if done > (max_gb * 10**9 if total is None else total):
                    self.discard()
                    what = "download.max_gb allows" if total is None else "the server announced"
                    raise self._error(f"{target.name} has more bytes than {what}")
                file.write(piece)
                update(done // 10**6)
            file.flush()
            os.fsync(file.fileno())
        if total is not None and done < total:
            raise Transient(f"only {done} of {total} bytes arrived")

    def _checked(self) -> str:
        """The checksum. Raises Mismatch for bytes of several responses, else SettingsError."""
        sha256 = sha256_of(self.path)
        try:
            self._check("size", self.size, self._target.file.size)
            self._check("sha256", sha256, self._target.file.sha256)
        except SettingsError:
            if self._is_resumed:
                raise Mismatch from None
            self.discard()
            raise
        return sha256

    def _check(self, key: str, value: object, declared: object) -> None:
        if declared is not None and value != declared:
            raise self._error(
                f"{self._target.name} has {key} {value}: not the declared one",
                allowed=str(declared),
                fix=f"check the URL; if the file changed, set  {key}: {value}",
            )


def _reason(error: Exception) -> str:
    """Why a connection failed, without the URL, which may contain a secret."""
    if "timed out" in str(error):
        return "the server does not respond"
    causes = re.findall(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return causes[-1].lower() if causes else f"the connection broke ({type(error).__name__})"
