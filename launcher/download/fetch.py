"""Download of the files that settings declare, and unpacking of untrusted archives."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
import shutil
import stat
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import url2pathname

import requests
from pydantic import TypeAdapter
from requests import exceptions

from gearshift.launcher.base import disk, environment, redaction
from gearshift.launcher.base.diagnostics import PROGRAM, FetchError, SettingsError
from gearshift.launcher.config.feature_checks import VARIABLES, DownloadTarget, targets
from gearshift.launcher.config.schema import Download
from gearshift.launcher.run_folder import lock
from gearshift.models.common.data_reports import progress
from gearshift.slurm.environment import RankEnvironment
from gearshift.training.logging.console_reporter import PlainOutput
from gearshift.training.logging.encoding import size
from gearshift.training.storage import StorageError, atomic_write, read_regular

if not hasattr(tarfile, "data_filter"):  # before Python 3.10.12 and 3.11.4
    from backports import tarfile  # type: ignore[no-redef]

_PIECE_BYTES = 1 << 16
_HEADER_BYTES = 1 << 26
_UNSAFE = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)|[\\\x00-\x1f\x7f]")
"""An absolute path, a drive, a way upwards, a backslash or a control character."""


@dataclass(frozen=True)
class Fetched:
    """A declared file that exists now, as it is recorded beside it."""

    path: Path
    url: str
    """Without secrets."""
    sha256: str
    """Of the downloaded file, before it was unpacked; so is the size."""
    size: int
    is_new: bool = False
    """Whether this call downloaded it."""


def fetch(
    settings: Download, is_shown: bool = False, ranks: RankEnvironment | None = None
) -> list[Fetched]:
    """Download all of `settings.files` that do not exist yet; gives all of them.

    A file is complete at its path, or does not exist there: it is downloaded and unpacked in
    another folder, checked and moved. Of several processes that download one file, one does, and
    the others wait. `ranks`: on several machines, which may share no disk, the files must exist.
    `is_shown`: with lines on stdout.

    Raises SettingsError if the user can fix it (a URL, a checksum, an unsafe archive), FetchError
    if network, server or disk fail. Touches the network and the disk.
    """
    show = partial(PlainOutput(sys.stdout).write, "notice") if is_shown else str
    files = []
    for target in targets(settings):
        try:
            file = _existing(target)
            if file is not None:
                show(f"{file.path} exists already, as declared")
            elif ranks is not None and ranks.world_size > ranks.local_size:
                raise _error(
                    f"{target.path} does not exist; "
                    "on several machines the files are not downloaded",
                    target,
                    hint=f"{PROGRAM} data fetch  with the same settings on each disk",
                )
            else:
                file = _fetch_alone(target, settings, show)
        except (StorageError, OSError) as error:
            raise FetchError(
                f"{target.path}: {error}",
                str(target.file.url),
                "free disk space or change the permissions, or set  --set download.folder=DIR",
            ) from error
        files.append(file)
    return files


def _fetch_alone(
    target: DownloadTarget, settings: Download, show: Callable[[str], object]
) -> Fetched:
    """Download the target, unless another process does: then wait for its file."""
    disk.check_writable(target.folder, "download.folder")
    lock_file = target.state / f"{target.name}.lock"
    for path in (target.state, lock_file):
        if path.is_symlink():  # of somebody else: what is written would land elsewhere
            raise _error(f"{path} is a link", target, fix=f"rm {shlex.quote(str(path))}")
    with disk.new_parents(lock_file), lock.hold(target.state, math.inf, lock_file.name):
        try:  # another process may be first
            return _existing(target) or _download(target, settings, show)
        finally:
            lock_file.unlink(missing_ok=True)


def _error(message: str, target: DownloadTarget, **parts: Any) -> SettingsError:
    """An error that the user can fix: wrong URL, file or archive; `parts`: allowed, fix."""
    return SettingsError.of(message, value=target.file.url, where=str(target.file.url), **parts)


def _existing(target: DownloadTarget) -> Fetched | None:
    """The file at the target's path; None if it has to be downloaded.

    A file that was not unpacked is read if its checksum is declared; else only its size is
    compared. Raises SettingsError if another file is there: files of the user are never replaced.
    """
    path = target.path
    if not path.exists():
        return None
    try:
        record = TypeAdapter(Fetched).validate_json(read_regular(_record(target)))
    except (OSError, ValueError):  # the user may have copied the file
        record = Fetched(path, "", "", path.stat().st_size)
    is_file = not target.is_archive
    declared = target.file.sha256
    if declared:
        if is_file:
            record = replace(record, sha256=_sha256(path) if path.is_file() else "")
        is_declared = record.sha256 == declared
    else:
        is_same_size = not is_file or record.size == path.stat().st_size
        is_declared = is_same_size and record.url == str(target.file.url)
    if not is_declared:
        raise _error(
            f"{path} exists, and is not the declared file",
            target,
            hint="--set download.folder=DIR  for another folder, or  "
            f"rm -r {shlex.quote(str(path))}",
        )
    return replace(record, path=path, is_new=False)


def _record(target: DownloadTarget) -> Path:
    return target.state / f"{target.path.name}.record.json"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in _pieces_of(file):
            digest.update(piece)
    return digest.hexdigest()


def _pieces_of(stream: Any) -> Iterator[bytes]:
    return iter(partial(stream.read, _PIECE_BYTES), b"")


def _download(target: DownloadTarget, settings: Download, show: Callable[[str], object]) -> Fetched:
    """Download, check and unpack the target in a folder of its own, then move it to its path."""
    show(f"{target.path}: downloading {target.file.url}")
    folder = target.state / f"{target.name}.new"
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
    folder.mkdir()
    try:
        new = folder / target.name
        _transfer(target, settings, new)
        fetched = Fetched(
            path=target.path,
            url=str(target.file.url),
            sha256=_sha256(new),
            size=new.stat().st_size,
            is_new=True,
        )
        for key in ("size", "sha256"):
            value = getattr(fetched, key)
            declared = getattr(target.file, key)
            if declared not in (None, value):
                raise _error(
                    f"{target.name} has {key} {value}: not the declared one",
                    target,
                    allowed=str(declared),
                    hint=f"check the URL; if the file changed, set  {key}: {value}",
                )
        if target.is_archive:
            archive = new
            new = folder / "unpacked"
            _unpack(target, archive, new, settings.max_gb)
            members = [path for path in new.iterdir() if path.name != "__MACOSX"]
            if len(members) == 1 and members[0].is_dir():
                new = members[0]
        # First: after a kill the next start downloads again.
        atomic_write(_record(target), TypeAdapter(Fetched).dump_json(fetched, indent=1))
        new.replace(target.path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(
        f"{target.path}: {size(fetched.size)} downloaded, "
        f"with the checksum  sha256: {fetched.sha256}"
    )
    return fetched


def _transfer(target: DownloadTarget, settings: Download, part: Path) -> None:
    """Write the bytes of the target to the file `part`, again after a broken connection."""
    url, secrets = _url(target, settings.variables)
    address = urlsplit(url)
    if address.scheme == "file":
        path = Path(url2pathname(address.path))
        if not path.is_file() or path.stat().st_size > settings.max_gb * 10**9:
            raise _error(
                "this is no file, or it is too large",
                target,
                allowed=f"a file of {_at_most(settings.max_gb)}",
            )
        shutil.copyfile(path, part)
        return

    cause = ""
    for attempt in range(settings.retries + 1):
        time.sleep(min(2**attempt // 2, 60))
        try:
            with (
                requests.get(
                    url,
                    stream=True,
                    timeout=settings.timeout_s,
                    headers={"User-Agent": "gearshift", "Accept-Encoding": "identity"},
                    hooks={"response": partial(check_redirect, target, secrets)},
                ) as response,
                part.open("wb") as out,
            ):
                if _receive(target, settings, response, out):
                    return
            cause = "the connection broke"
        except (exceptions.SSLError, exceptions.TooManyRedirects, ValueError) as error:
            kind = type(error).__name__  # its text may contain a secret
            raise _error(
                f"this URL, or the one it redirects to, cannot be opened by http or https: {kind}",
                target,
            ) from None
        except exceptions.HTTPError as error:  # of `_receive`
            cause = str(error)
        except exceptions.RequestException as error:
            cause = type(error).__name__
    raise FetchError(
        f"cannot download {target.name}: {cause}",
        str(target.file.url),
        "run the same command again later",
    )


def _at_most(max_gb: float) -> str:
    return f"at most {max_gb:g} GB (download.max_gb)"


def _receive(
    target: DownloadTarget, settings: Download, response: requests.Response, out: BinaryIO
) -> bool:
    """Write the answer to `out`; whether it is complete. Raises HTTPError to try again."""
    code = response.status_code
    message = f"the server responds {code} {response.reason}"
    if code in (408, 425, 429) or code >= 500:
        raise exceptions.HTTPError(message)
    if code != 200:
        raise _error(
            message,
            target,
            hint="check whether the URL opens in a browser; put a login into ~/.netrc",
        )

    total = int(response.headers.get("Content-Length", 0))
    with progress(f"{target.name}, MB", total // 10**6 or None) as update:
        for piece in response.iter_content(_PIECE_BYTES):
            out.write(piece)
            count = out.tell()
            if max(count, total) > settings.max_gb * 10**9:
                raise _error(
                    f"{target.name} is too large", target, allowed=_at_most(settings.max_gb)
                )
            update(count // 10**6)
    return out.tell() >= total


def check_redirect(
    target: DownloadTarget, secrets: str, response: requests.Response, **_: object
) -> None:
    """Refuse a redirect from https to http, and one of a secret (a pattern) to another host.

    requests drops the password there. Raises SettingsError.
    """
    new = urljoin(response.url, response.headers.get("Location", ""))
    is_downgrade = response.url.startswith("https:") and new.startswith("http:")
    is_same_host = urlsplit(response.url).hostname == urlsplit(new).hostname
    if is_downgrade or (not is_same_host and re.search(secrets, unquote(new))):
        message = "the server redirects without encryption, or to another host with a variable"
        raise _error(message, target)


def _url(target: DownloadTarget, allowed: Sequence[str]) -> tuple[str, str]:
    """The URL with its secrets and the values of its variables; a pattern that matches the values.

    Only variables that the user allows are sent, and nobody between here and the host can read
    them. Raises SettingsError.
    """
    text = getattr(target.file.url, "unredacted", target.file.url)
    names = redaction.variables_of(text)
    variables = environment.variables()
    for name in names:
        if name not in allowed:
            with_names = ",".join(dict.fromkeys([*allowed, *names]))
            raise _error(
                f"the URL uses the environment variable {name}, "
                "which the command line does not allow",
                target,
                fix=f"--set {VARIABLES}={with_names}",
            )
        if not variables.get(name):
            raise _error(f"the URL uses the environment variable {name}, which is not set", target)
    url = redaction.expand_variables(text, variables)
    if not names:
        return url, r"(?!)"
    if not redaction.is_private(url):
        raise _error(
            "the URL would send an environment variable without encryption",
            target,
            allowed="https, or http to this machine",
        )
    values = "|".join(re.escape(variables[name]) for name in names)
    return url, rf"(?<!\w)({values})(?!\w)"


class _Member(tarfile.TarInfo):
    """A header of at most _HEADER_BYTES: tarfile reads one into memory as a whole."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
        """As TarInfo.frombuf. Raises ReadError."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.size > _HEADER_BYTES and not member.isreg()):
            raise tarfile.ReadError("a header has an impossible size")
        return member


def _unpack(target: DownloadTarget, archive: Path, out: Path, max_gb: float) -> None:
    """Unpack `archive` to the new folder `out`, at most `max_gb`; links are refused.

    Raises SettingsError; `out` may then exist. Touches the disk.
    """
    total_bytes = 0

    def check(name: str, count: int, is_plain: bool = True) -> None:
        """Count the bytes of a member, and check it before it is written."""
        nonlocal total_bytes
        total_bytes += count
        if count < 0 or total_bytes > max_gb * 10**9:
            raise ValueError(f"more than {max_gb:g} GB (download.max_gb)")
        if not is_plain or _UNSAFE.search(name):
            raise ValueError(f"'{name}' is a link, a device or an unsafe path")

    try:
        if archive.suffix.lower() == ".zip":  # zipfile never gives more bytes than a header states
            with zipfile.ZipFile(archive) as opened:
                for info in opened.infolist():
                    info.filename = info.filename.replace("\\", "/")  # some programs of Windows
                    check(info.filename, info.file_size, not stat.S_ISLNK(info.external_attr >> 16))
                    opened.extract(info, out)
        else:  # its first bytes tell its compression
            with tarfile.open(archive, "r:*", tarinfo=_Member) as tar:
                for member in tar:
                    check(member.name, member.size, member.isreg() or member.isdir())
                    tar.extract(member, out, set_attrs=False, filter="data")
                # Up to the checksum of the compressed stream.
                for piece in _pieces_of(tar.fileobj):
                    if piece.strip(b"\0"):  # tarfile takes a broken header for the end
                        raise tarfile.ReadError("a header is broken")
    except Exception as error:  # these libraries share no class of errors
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk
        raise _error(
            f"{target.name} cannot be unpacked: {error}",
            target,
            hint="unpack: no  to keep it as it is",
        ) from None
