"""experiences.json: which files a run has learnt from, experience by experience, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from launcher.continual.watch import Stamp, stamp_of
from training.logging.strict_json import encode_bytes
from training.storage import StorageError, atomic_write, storage_errors

NAME = "experiences.json"
_FORMAT = 1
_WHOLE = 16 * 2**20
_PROBES = 16
_PROBE = 2**20

State = Literal["planned", "training", "learnt", "refused"]


@dataclass(frozen=True)
class File:
    """A file as it was when it was taken."""

    size: int
    mtime_ns: int
    digest: str

    @property
    def stamp(self) -> Stamp:
        """What a look would tell of it."""
        return Stamp(self.size, self.mtime_ns)


@dataclass(frozen=True)
class Experience:
    """Files that are learnt together; number 0 is the data that the run began with."""

    number: int
    files: Mapping[str, File]
    state: State = "planned"
    begun_at: int = 0
    """The step after which it began."""
    ended_at: int | None = None
    how: Mapping[str, Any] = field(default_factory=dict)
    """The settings it is learnt with, so that a resumed one is learnt as it began."""
    learnt: Mapping[str, Any] | None = None
    """Metrics of old and new data, before and after."""
    reason: str | None = None
    """Why it was refused; its files wait for others."""

    @property
    def is_under_way(self) -> bool:
        """Whether it is to be learnt, or to be learnt to its end."""
        return self.state in ("planned", "training")


@dataclass(frozen=True)
class Ledger:
    """All experiences of a run, in order."""

    experiences: Sequence[Experience] = ()

    @property
    def under_way(self) -> Experience | None:
        """The one to go on with."""
        return next((one for one in self.experiences if one.is_under_way), None)

    @property
    def learnt(self) -> list[Experience]:
        """Those that are learnt, the first data among them."""
        return [one for one in self.experiences if one.state == "learnt"]

    @property
    def refused(self) -> Experience | None:
        """The newest one, where it was refused."""
        newest = self.experiences[-1] if self.experiences else None
        return newest if newest is not None and newest.state == "refused" else None

    def taken(self) -> dict[str, File]:
        """The files that are learnt or about to be."""
        return {
            name: file
            for one in self.experiences
            if one.state != "refused"
            for name, file in one.files.items()
        }

    def with_(self, experience: Experience) -> Ledger:
        """The ledger with `experience` in its place, or at the end."""
        kept = [one for one in self.experiences if one.number != experience.number]
        return Ledger(sorted([*kept, experience], key=lambda one: one.number))

    def back_to(self, step: int) -> Ledger:
        """As it was at `step`, from which the run goes on: what was learnt later is not."""
        kept: list[Experience] = []
        for one in self.experiences:
            if one.number and one.begun_at >= step:
                break
            if one.state == "learnt" and one.ended_at is not None and one.ended_at > step:
                one = replace(one, state="training", ended_at=None, learnt=None)
            kept.append(one)
        return Ledger(kept)

    @property
    def next_number(self) -> int:
        """That of the next experience."""
        return self.experiences[-1].number + 1 if self.experiences else 0

    def save(self, run: Path) -> None:
        """Write it into the run folder, whole or not at all. Raises StorageError."""
        path = run / NAME
        told = {"format": _FORMAT, "experiences": [asdict(one) for one in self.experiences]}
        with storage_errors(path):
            atomic_write(path, encode_bytes(told, indent=1) + b"\n")


def load(run: Path) -> Ledger | None:
    """The ledger of a run folder; None: it has none. Raises StorageError. Reads the disk."""
    path = run / NAME
    try:
        told = json.loads(path.read_bytes())
        return Ledger([_experience(one) for one in told["experiences"]])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as fault:
        raise StorageError(path, OSError(f"it is no ledger of experiences: {fault}")) from fault


def _experience(told: Mapping[str, Any]) -> Experience:
    files = {name: File(**file) for name, file in told["files"].items()}
    return Experience(**{**told, "files": files})


def take(folder: Path, names: Mapping[str, Stamp]) -> dict[str, File]:
    """The files as the ledger keeps them, but those that are no longer as `names` says.

    Reads the disk.
    """
    found = {}
    for name, stamp in names.items():
        try:
            digest = digest_of(folder / name, stamp.size)
        except OSError:
            continue
        if stamp_of(folder / name) == stamp:
            found[name] = File(stamp.size, stamp.mtime_ns, digest)
    return found


def digest_of(path: Path, size: int) -> str:
    """A digest of the size and the content; of files above 16 MiB of 16 stretches of 1 MiB.

    Raises OSError.
    """
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for number in range(_PROBES):
                file.seek(number * (size - _PROBE) // (_PROBES - 1))
                digest.update(file.read(_PROBE))
    return digest.hexdigest()[:32]


def changed(folder: Path, files: Mapping[str, File]) -> Iterator[str]:
    """The files that are no longer as they were taken, or are gone. Reads the disk."""
    for name, file in files.items():
        stamp = stamp_of(folder / name)
        if stamp == file.stamp:
            continue
        try:
            if stamp is None or digest_of(folder / name, stamp.size) != file.digest:
                yield name
        except OSError:
            yield name
