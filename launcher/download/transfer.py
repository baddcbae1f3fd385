"""Transfer of one file: resume after broken connections, retries, size and checksum."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import TypeAdapter

from launcher.base.diagnostics import FetchError, SettingsError
from launcher.config.feature_checks import DownloadTarget
from launcher.download.console import DownloadProgress, Draw, Print
from models.common.data_files import identity
from training.logging.quantities import duration, size
from training.storage import atomic_write

_PIECE_BYTES = 1 << 20
_PROGRESS_BYTES = 1 << 20
"""An attempt that transfers this much resets the count of failures."""
_FIRST_WAIT_S, _MAX_WAIT_S = 1.0, 60.0
_MAX_RETRY_AFTER_S = 600.0
"""If the server asks for a longer wait, the download fails."""


class Transient(Exception):
    """One attempt failed; a retry may succeed, after the wait that the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Mismatch(Transient):
    """The part on disk does not belong to the file on the server: it starts from byte 0."""

    def __init__(self) -> None:
        super().__init__("the file on the server is another version; restarting from byte 0")


def settings_error(message: str, url: str, **parts: object) -> SettingsError:
    """An error that the user can fix: wrong URL, file or checksum; `parts` are allowed and fix.

    Control characters of `message`, from names of a server or an archive, are replaced.
    """
    return SettingsError.of(message, value=url, where=url, **parts)


@dataclass(frozen=True)
class Body:
    """The bytes of a file from `start` on."""

    start: int
    total: int | None
    """Bytes of the whole file; None: unknown."""
    version: str | None
    """As the server states it; None: two versions cannot be distinguished."""
    pieces: Iterator[bytes]
    """Raises Transient if the connection breaks."""


Source = Callable[[int, str | None], Body]
"""The bytes of a file from a position on, if it still has the version; else from 0.

Raises Transient, Mismatch, and SettingsError if a retry cannot help.
"""


def local_source(url: str) -> Source:
    """The source of a file: URL; always read from byte 0. Reads the disk."""
    path = Path(url2pathname(urlsplit(url).path))

    def pieces() -> Iterator[bytes]:
        try:
            with path.open("rb") as file:
                yield from iter(partial(file.read, _PIECE_BYTES), b"")
        except OSError as error:
            raise settings_error(f"cannot read the file: {error.strerror or error}", url) from None

    def open_file(start: int, version: str | None) -> Body:
        if not path.is_file():
            raise settings_error(
                "not a file",
                url,
                fix="leave out --download-data  and type  --data PATH  for a folder",
            )
        return Body(0, path.stat().st_size, None, pieces())

    return open_file


@dataclass(frozen=True)
class TransferOptions:
    """The options of all transfers of one call."""

    retries: int
    """In a row, after broken connections."""
    max_bytes: int
    """Of one file, downloaded and unpacked."""
    print: Print
    draw: Draw
    sleep: Callable[[float], None]


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
    """As `mtime_ns`; -1 in records of older versions."""

    @property
    def stamp(self) -> tuple[int, int, int]:
        """What differs for another file at the same path."""
        return self.mtime_ns, self.ctime_ns, self.inode

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


class PartialFile:
    """The unfinished file of a target, with its checksum and version. Touches the disk.

    A part of another URL is discarded.
    """

    version: str | None
    was_resumed: bool
    """Whether the bytes are from more than one response."""

    def __init__(self, target: DownloadTarget) -> None:
        self.path = target.state / f"{target.name}.part"
        self._record = target.state / f"{target.name}.part.json"
        self._url = str(target.file.url)
        self._file = self.path.open("a+b", buffering=0)  # no byte is lost if we are killed
        record = read_record(self._record)
        if record is None or record.url != self._url:
            self.clear()
            return
        self.version, self.was_resumed = record.version, False
        self._hash = sha256_of(self.path)
        self.size = self.path.stat().st_size

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        if not self.size:
            self.discard()

    @property
    def sha256(self) -> str:
        """The checksum of the bytes so far."""
        return self._hash.hexdigest()

    def clear(self) -> None:
        """Start from byte 0."""
        self._file.truncate(0)
        self._hash, self.size = hashlib.sha256(), 0
        self.version, self.was_resumed = None, False
        self._record.unlink(missing_ok=True)

    def set_version(self, version: str | None) -> None:
        """Record the version of the file that this is a part of."""
        self.version = version
        DownloadRecord(self._url, version).write(self._record)

    def write(self, piece: bytes) -> None:
        """Append `piece`."""
        left = memoryview(piece)
        while left:  # an unbuffered write may be short
            left = left[self._file.write(left) :]
        self._hash.update(piece)
        self.size += len(piece)

    def sync(self) -> None:
        """Flush the bytes to the disk, before the file is renamed."""
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Remove the part and its record."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


def sha256_of(path: Path) -> hashlib._Hash:
    """The checksum of a file. Reads the disk."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest


def transfer(
    target: DownloadTarget, source: Source, options: TransferOptions, part: PartialFile
) -> None:
    """Transfer all of a file into `part`, and check its size and checksum.

    Raises SettingsError if the file is not the declared one, FetchError if the transfer fails.
    Touches the network and the disk.
    """
    failures = 0
    while part.sha256 != target.file.sha256:  # complete already if a later step failed
        before = part.size
        try:
            _attempt(target, source, options, part)
            break
        except Transient as error:
            failures = 1 if part.size - before >= _PROGRESS_BYTES else failures + 1
            if isinstance(error, Mismatch):
                part.clear()
            _wait(target, error, failures, options, part)
    part.sync()


def _wait(
    target: DownloadTarget,
    error: Transient,
    failures: int,
    options: TransferOptions,
    part: PartialFile,
) -> None:
    """Wait before the next attempt. Raises FetchError after too many failures in a row."""
    too_long = error.wait_s > _MAX_RETRY_AFTER_S
    if failures > options.retries or too_long:
        waits = f", and asks to wait {duration(error.wait_s)}" if too_long else ""
        tried = "" if waits or failures == 1 else f", {failures} times in a row"
        part_note = f"; {size(part.size)} are kept" if part.size else ""
        message = f"cannot download {target.name}: {error}{waits}{tried}{part_note}"
        raise FetchError(message, target.file.url, "run the same command again later: it resumes")
    backoff_s = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2 ** (failures - 1))
    wait_s = max(backoff_s * random.uniform(0.5, 1), error.wait_s)
    attempt = f"attempt {failures + 1} of {options.retries + 1}"
    options.print(f"{target.name}: {error}; {attempt} in {duration(wait_s)}")
    options.sleep(wait_s)


def _attempt(
    target: DownloadTarget, source: Source, options: TransferOptions, part: PartialFile
) -> None:
    if part.size and part.version is None and target.file.sha256 is None:
        part.clear()  # nothing can tell whether the rest belongs to it
    body = source(part.size, part.version)
    if body.start != part.size:
        part.clear()
    part.was_resumed |= body.start > 0
    _check_size(target, target.file.size if body.total is None else body.total, options, part)
    part.set_version(body.version)
    max_bytes = options.max_bytes if body.total is None else body.total
    for piece in body.pieces:
        if part.size + len(piece) > max_bytes:
            part.discard()
            what = "download.max_gb allows" if body.total is None else "the server announced"
            raise settings_error(f"{target.name} has more bytes than {what}", target.file.url)
        part.write(piece)
        options.draw(DownloadProgress(target.name, part.size, body.total))
    if body.total is not None and part.size < body.total:
        raise Transient(f"only {part.size} of {body.total} bytes arrived")
    _check_content(target, part)


def _check_content(target: DownloadTarget, part: PartialFile) -> None:
    """Check the declared size and checksum.

    Raises Mismatch if the part is from several attempts; else SettingsError, and discards it.
    """
    facts = ("size", part.size, target.file.size), ("sha256", part.sha256, target.file.sha256)
    wrong = [fact for fact in facts if fact[2] is not None and fact[1] != fact[2]]
    if not wrong:
        return
    if part.was_resumed:
        raise Mismatch
    part.discard()
    raise _not_declared(target, *wrong[0])


def _not_declared(
    target: DownloadTarget, key: str, value: object, declared: object
) -> SettingsError:
    return settings_error(
        f"{target.name} has {key} {value}: not the declared one",
        target.file.url,
        allowed=str(declared),
        fix=f"check the URL; if the file changed, set  {key}: {value}",
    )


def _check_size(
    target: DownloadTarget, total: int | None, options: TransferOptions, part: PartialFile
) -> None:
    if total is None:
        return
    declared, left = target.file.size, total - part.size
    if declared is not None and total != declared:
        raise _not_declared(target, "size", total, declared)
    if total > options.max_bytes:
        allowed = f"at most {options.max_bytes / 1e9:g} GB (download.max_gb)"
        raise settings_error(f"{target.name} has {size(total)}", target.file.url, allowed=allowed)
    if left > (free := shutil.disk_usage(target.state).free):
        raise settings_error(
            f"{target.name} needs {size(left)} more; the disk of {target.folder} has "
            f"{size(free)} free",
            target.file.url,
            fix="--set download.folder=DIR  on another disk",
        )
