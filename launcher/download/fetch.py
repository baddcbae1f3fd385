"""Fetches the files that the settings declare, as far as they are not there already."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from launcher.base import environment, redaction
from launcher.config.feature_settings import Download
from launcher.download import place, presence
from launcher.download.errors import FetchError, refused
from launcher.download.local import LocalSource
from launcher.download.part import Part
from launcher.download.progress import Draw, Tell, undrawn
from launcher.download.record import Finished
from launcher.download.source import Source
from launcher.download.targets import Target, targets
from launcher.download.terms import Terms
from launcher.download.transfer import transfer
from launcher.run_folder import lock
from training.logging.quantities import size
from training.storage import StorageError

_GB = 10**9


@dataclass(frozen=True)
class Fetched:
    """A declared file that is there now."""

    name: str
    url: str
    """Without secrets."""
    path: Path
    """The file, or the folder that its archive was unpacked into."""
    sha256: str
    """Of what was fetched, before it was unpacked."""
    size: int
    """The bytes that were fetched, before they were unpacked."""
    is_new: bool
    """Whether it was fetched by this call."""

    @property
    def line(self) -> str:
        """What is told of one that was there."""
        return f"{self.path} is there already, as declared"


def fetch(
    settings: Download,
    tell: Tell,
    draw: Draw = undrawn,
    again: bool = False,
    pause: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Fetch all of `settings.files` that are not there yet; what is there now, as declared.

    Each file is whole and in its place, or not there: it comes under another name, is proved,
    unpacked, and moved. What came before a fault or Ctrl-C is kept, and the next call goes on from
    it. Of several processes that fetch one file, one does, and the others wait.

    `tell` is told what is done, and nothing of what is there; `draw` sees, often, how far a file
    has come; `again`: ask the servers of files without a checksum whether there is a newer one,
    which then replaces what is there; `pause` waits so many seconds between retries.

    Raises SettingsError for what the person can mend (a URL, a checksum, an archive that is not
    safe), FetchError where network, server or disk fail. Touches the network and the disk.
    """
    terms = Terms(settings.retries, int(settings.max_gb * _GB), tell, draw, pause)
    return [_one(target, settings.timeout_s, terms, again) for target in targets(settings)]


def _one(target: Target, timeout_s: float, terms: Terms, again: bool) -> Fetched:
    asks = again and target.file.sha256 is None
    try:
        if not asks and (known := presence.find(target)) is not None:  # also where nobody may write
            return _fetched(target, known, is_new=False)
        target.state.mkdir(parents=True, exist_ok=True)
        with lock.hold(target.state, math.inf, f"{target.name}.lock"):
            known = presence.find(target)
            if known is not None and not asks:  # another process was first
                return _fetched(target, known, is_new=False)
            with _source(target, timeout_s) as source, Part(target) as part:
                return _bring(target, source, terms, part, known)
    except StorageError as error:
        raise _unwritable(target, error.fault) from error
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(target: Target, error: OSError) -> FetchError:
    what = f"{error.filename or target.folder} cannot be written: {error.strerror or error}"
    fix = "make room or mend its permissions, or write  download.folder: DIR"
    return FetchError(what, str(target.file.url), fix)


def _bring(
    target: Target, source: Source, terms: Terms, part: Part, known: Finished | None
) -> Fetched:
    """Transfer, unpack, move into place. `known`: what is there, and may be the newest."""
    if known is None:
        begun = f", going on after {size(part.size)}" if part.size else ""
        terms.tell(f"{target.path}: fetching {target.file.url}{begun}")
    try:
        is_new = transfer(target, source, terms, part, known.stamp if known else None)
    except KeyboardInterrupt:
        if part.size:
            terms.tell(
                f"{target.name}: {size(part.size)} are kept; the same words go on from there"
            )
        raise
    if known is not None and (not is_new or part.sha256 == known.sha256):
        part.discard()
        return _fetched(target, known, is_new=False)
    now = place.put(target, part, terms)
    terms.tell(f"{target.path}: {size(part.size)} fetched{_checked(target, part)}")
    return _fetched(target, now, is_new=True)


def _checked(target: Target, part: Part) -> str:
    if target.file.sha256 is not None:
        return ", its checksum is right"
    return f"; to have it checked the next time, write  sha256: {part.sha256}"


def _fetched(target: Target, known: Finished, is_new: bool) -> Fetched:
    url, path = str(target.file.url), target.path
    return Fetched(target.name, url, path, known.sha256, known.size, is_new)


@contextmanager
def _source(target: Target, timeout_s: float) -> Iterator[Source]:
    """What the file comes from; its URL with all secrets."""
    shown, whole = str(target.file.url), _whole(target)
    source: Source
    if urlsplit(whole).scheme == "file":
        source = LocalSource(whole)
    else:
        # Only here, for it takes a third of a second, and most starts fetch nothing.
        from launcher.download.http import HttpSource

        source = HttpSource(whole, shown, timeout_s)
    with closing(source):
        yield source


def _whole(target: Target) -> str:
    url = target.file.url
    text = url.unredacted if isinstance(url, redaction.Url) else url
    if redaction.MASK in text:
        raise refused(
            "the secrets of this URL were cut out when the settings were saved",
            url,
            fix="write the URL again, put user and password into ~/.netrc, or name a variable of "
            "the environment, ${NAME}, in the URL",
        )
    try:
        return redaction.expand_variables(text, environment.variables())
    except KeyError as missing:
        what = f"the URL names the variable {missing.args[0]}, which is not set"
        raise refused(what, url) from None
