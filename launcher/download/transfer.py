"""Brings a file here, however often the connection breaks, and proves that it is whole."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable

from launcher.download.errors import FetchError, StartOver, Transient, refused
from launcher.download.part import Part
from launcher.download.progress import Progress
from launcher.download.record import Stamp
from launcher.download.source import Body, Source
from launcher.download.targets import Target
from launcher.download.terms import Terms
from training.logging.quantities import duration, size

_PROGRESS_BYTES = 1 << 20
"""An attempt that brought so much counts as a new first one."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_PATIENCE_S = 600.0
"""A server that asks for a longer wait is not waited for."""


def transfer(
    target: Target, source: Source, terms: Terms, part: Part, unless: Stamp | None
) -> bool:
    """Bring all of the file into `part`; whether there was anything new since `unless`.

    Raises SettingsError where what comes is not what was declared, FetchError where it does not
    come. Touches the network and the disk.
    """
    if not _fetch(target, source, terms, part, unless):
        return False
    try:
        _prove(target, part)
    except StartOver:
        # Resumed, and wrong: the file may have changed without its server saying so.
        terms.tell(f"{target.name}: its checksum is wrong; from the beginning")
        part.clear()
        _fetch(target, source, terms, part, None)
        _prove(target, part)
    part.sync()
    return True


def backoff(failures: int, draw: Callable[[], float] = random.random) -> float:
    """Seconds to wait after so many failures in a row: twice as long each time, up to a minute.

    Half of it is left to chance, so that many who lost one server do not return as one.
    """
    longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (failures - 1))
    return longest * (0.5 + draw() / 2)


def _fetch(target: Target, source: Source, terms: Terms, part: Part, unless: Stamp | None) -> bool:
    failures = 0
    if target.file.sha256 is not None and part.sha256 == target.file.sha256.lower():
        return True  # all of it came, and something else failed
    while True:
        before = part.size
        try:
            return _attempt(target, source, terms, part, unless)
        except StartOver:
            part.clear()
            fault = Transient("what had come is not a part of what is there now")
        except Transient as error:
            fault = error
        failures = 1 if part.size - before >= _PROGRESS_BYTES else failures + 1
        if failures > terms.retries or fault.wait_s > _PATIENCE_S:
            raise _given_up(target, part, fault, failures)
        wait_s = max(backoff(failures), fault.wait_s)
        often = f"try {failures + 1} of {terms.retries + 1}"
        terms.tell(f"{target.name}: {fault.reason}; {often} in {duration(wait_s)}")
        terms.pause(wait_s)


def _attempt(
    target: Target, source: Source, terms: Terms, part: Part, unless: Stamp | None
) -> bool:
    """Fetch what is missing; False: nothing is newer than `unless`."""
    if part.size and part.stamp.strong is None and target.file.sha256 is None:
        part.clear()  # nothing would tell whether the rest belongs to it
    body = source.open(part.size, part.stamp, unless)
    if body is None:
        return False
    if body.start != part.size:
        part.clear()
    part.was_resumed |= body.start > 0
    expected = body.total if body.total is not None else target.file.size
    _check_size(target, expected, terms.most_bytes)
    _check_room(target, (expected or 0) - part.size)
    part.belongs_to(body.stamp, body.total)
    _receive(target, body, part, terms)
    if body.total is not None and part.size < body.total:
        raise Transient(f"only {part.size} of {body.total} bytes came")
    return True


def _receive(target: Target, body: Body, part: Part, terms: Terms) -> None:
    most = body.total if body.total is not None else terms.most_bytes
    begun = part.size
    for piece in body.pieces:
        if part.size + len(piece) > most:
            part.discard()
            announced = body.total is not None
            what = f"more came than the {most} bytes that the server announced"
            raise refused(what, target.file.url) if announced else _too_large(target, most)
        part.write(piece)
        terms.draw(Progress(target.name, part.size, body.total, part.size - begun))


def _prove(target: Target, part: Part) -> None:
    """See that the part is what was declared, and leave nothing of it where it is not.

    Raises StartOver where it was put together from several attempts, else SettingsError.
    """
    file = target.file
    wrong = []
    if file.size is not None and part.size != file.size:
        wrong.append(("size", f"{part.size} bytes", f"{file.size} bytes"))
    if file.sha256 is not None and part.sha256 != file.sha256.lower():
        wrong.append(("sha256", part.sha256, file.sha256.lower()))
    if not wrong:
        return
    if part.was_resumed:
        raise StartOver
    part.discard()
    name, came, declared = wrong[-1]
    raise refused(
        f"{target.name} has the {name} {came}, not the one that is declared",
        file.url,
        allowed=declared,
        fix=f"another file lies there now: look at the URL, or write  {name}: {came.split()[0]}",
    )


def _check_size(target: Target, total: int | None, most_bytes: int) -> None:
    if total is None:
        return
    declared = target.file.size
    if declared is not None and total != declared:
        raise refused(
            f"{target.name} has {total} bytes, not those that are declared",
            target.file.url,
            allowed=f"{declared} bytes",
            fix=f"another file lies there now: look at the URL, or write  size: {total}",
        )
    if total > most_bytes:
        raise _too_large(target, most_bytes, total)


def _too_large(target: Target, most_bytes: int, total: int | None = None) -> Exception:
    told = size(total) if total is not None else f"more than {size(most_bytes)}"
    return refused(
        f"{target.name} has {told}",
        target.file.url,
        allowed=f"at most {most_bytes / 1e9:g} GB, as download.max_gb says",
        fix="download.max_gb: N  if that is meant",
    )


def _check_room(target: Target, needed: int) -> None:
    free = shutil.disk_usage(target.state).free
    if needed > free:
        raise refused(
            f"{target.name} needs {size(needed)} more, and the disk of {target.folder} has "
            f"{size(free)}",
            target.file.url,
            fix="download.folder: DIR  on another disk",
        )


def _given_up(target: Target, part: Part, fault: Transient, failures: int) -> FetchError:
    waits = f", and asks to wait {duration(fault.wait_s)}" if fault.wait_s > _PATIENCE_S else ""
    tried = "" if waits or failures == 1 else f", {failures} times in a row"
    kept = f"; {size(part.size)} are kept" if part.size else ""
    what = f"{target.name} was not fetched: {fault.reason}{waits}{tried}{kept}"
    return FetchError(what, target.file.url, "run the same again later: it goes on from there")
