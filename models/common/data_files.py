"""Data files: finding them, errors for what cannot be read, and bad records reported together."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from gearshift.models.base import DataError
from gearshift.models.common.data_reports import (
    MAX_EXAMPLES,
    MissingPackage,
    install_command,
    listed,
)

Key = TypeVar("Key", bound=Hashable)


MOST_RATIO = 200
ALWAYS_UNPACKED = 1 << 26
"""Bytes that a packed byte may stand for, and that any file may unpack to. Gzip reaches 1,000, with
data that repeats one letter; logs and tables reach 10 to 50."""


def most_unpacked(path: Path) -> int:
    """The bytes to which a file may unpack. Reads the disk."""
    return max(ALWAYS_UNPACKED, MOST_RATIO * path.stat().st_size)


def check_expansion(path: Path, unpacked: int) -> None:
    """Raises DataError if `path` unpacks to far more bytes than real data of its size does."""
    most = most_unpacked(path)
    if unpacked > most:
        raise DataError(
            f"'{path}' has {path.stat().st_size:,} bytes and unpacks to {unpacked:,} or more",
            where=f"data.path, {path}",
            allowed=f"at most {most:,} bytes for a file of this size",
            hint="store it unpacked, if it is what it should be",
        )


FILES_CHECKED = 10_000
"""Files of a folder that are looked at to recognize its format."""
_SYSTEM_FOLDERS = ("/", "/dev", "/proc", "/sys")
"""The whole disk, and files of which some never end."""


def existing_path(path: str, allowed: str, key: str = "data.path") -> Path:
    """The file or folder that the setting `key` names. Raises DataError, which lists `allowed`."""
    source = Path(path).expanduser()
    try:
        source.stat()  # Path.exists tells nothing of a missing permission since Python 3.14
    except (FileNotFoundError, NotADirectoryError, ValueError):
        where = f"looked for {source.absolute()}"
        raise DataError(f"{key} '{path}' does not exist", where=where, allowed=allowed) from None
    except OSError as error:
        raise unreadable_file(source, error, key) from None
    check_kind(source, key)
    return source


def check_kind(path: Path, key: str = "data.path") -> None:
    """Raise DataError for a pipe or a device, and for a whole disk, before anything is read."""
    is_system = str(path.resolve()) in _SYSTEM_FOLDERS
    if is_system or not (path.is_file() or path.is_dir()):
        raise DataError(
            f"{key} '{path}' is not a regular file, nor a folder of data",
            where=str(path.absolute()),
            allowed="a file on disk, not a pipe or a device; a folder of data, not of the system",
        )


def files(path: Path) -> list[Path]:
    """The file itself, or all files of a folder at any depth, without hidden ones, by name.

    Raises DataError where a folder cannot be read, and as `walk`.
    """
    if not path.is_dir():
        return [path]

    def fail(error: OSError) -> None:
        raise unreadable_file(path, error)

    paths = [folder / name for folder, _, names in walk(path, fail) for name in names]
    return sorted(paths, key=lambda file: file.as_posix())


def walk(
    path: Path,
    onerror: Callable[[OSError], None] | None = None,
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As os.walk, sorted within each folder, without hidden entries.

    Raises DataError for a file that would never end, such as a pipe, and for a link to nothing.
    """
    for folder, folders, names in os.walk(path, onerror=onerror):
        # In place: os.walk enters the folders that are left.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = sorted(name for name in names if not name.startswith("."))
        for name in names:
            file = os.path.join(folder, name)
            if not os.path.isfile(file):
                raise DataError(
                    f"'{file}' is not a regular file, or a link to nothing",
                    where="data.path",
                    allowed="files on disk and links to files; no pipes, sockets or devices",
                    hint="move it out of the folder",
                )
        yield Path(folder), folders, names


def first_files(path: Path) -> Iterator[Path]:
    """The file itself, or the first files of a folder; lazy, so that a large folder is not walked.

    Folders that cannot be read are left out. Raises DataError as `walk`.
    """
    if not path.is_dir():
        return iter([path])
    paths = (folder / name for folder, _, names in walk(path) for name in names)
    return islice(paths, FILES_CHECKED)


def identity(path: Path) -> tuple[int, int, int, int]:
    """Size, modification time, change time and inode of a file, for caches of what is in it.

    No program sets the change time, so a file that replaces another one of its size and
    modification time differs. Reads the disk. Raises OSError.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


_BLOCK = 1 << 20
"""Bytes of the begin that are compared before whole files."""


def copies(files: Mapping[Key, Path]) -> dict[Key, Key]:
    """The names of files whose content an earlier one has, each with the name of that one.

    The same recording or page under two names would be trained on and validate. Only files of one
    size that begin equally are read whole. Reads the disk. Raises DataError.
    """
    groups = [list(files)]
    try:
        for blocks in (0, 1, None):
            parts: dict[Hashable, list[Key]] = {}
            for name in chain(*groups):
                parts.setdefault(_digest(files[name], blocks), []).append(name)
            groups = [part for part in parts.values() if len(part) > 1]
    except OSError as error:
        raise unreadable_file(Path("data"), error) from None
    first_of = {}
    for first, *others in groups:
        first_of.update(dict.fromkeys(others, first))
    return first_of


def _digest(path: Path, blocks: int | None) -> Hashable:
    """The size of a file and a digest of its first `blocks`; None: of all."""
    digest = sha256()
    with path.open("rb") as file:
        for block in islice(iter(lambda: file.read(_BLOCK), b""), blocks):
            digest.update(block)
        return os.fstat(file.fileno()).st_size, digest.digest()


def told_copies(first_of: Mapping[Any, Any]) -> dict[str, str]:
    """The fact that tells of `copies`; none without them."""
    if not first_of:
        return {}
    names = [f"{copy} of {first}" for copy, first in first_of.items()]
    return {"copies": f"not read: {listed(names, MAX_EXAMPLES)}"}


def check_reader(package: str, path: Path, fix: str = "") -> None:
    """Raise MissingPackage if the package that reads the file at `path` is not installed.

    `fix`: the line that installs it; default: that of the extra `data`.
    """
    if find_spec(package) is None:
        raise MissingPackage(
            f"reading '{path.name}' requires the package {package}, which is not installed",
            where=str(path),
            fix=fix or install_command("data"),
        )


def unreadable_file(path: Path, error: Exception, key: str = "data.path") -> DataError:
    """The error for a file that the system does not open, or that is not complete."""
    file = getattr(error, "filename", None) or path
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"'{file}' cannot be read: {reason}",
        where=key,
        allowed="complete files, and folders, that you may read",
    )


def unknown_format(path: Path, formats: Sequence[str]) -> DataError:
    """The error for data in no format that the family reads."""
    return DataError(
        f"'{path}' has an unknown format",
        where="data.path",
        allowed="; ".join(formats),
    )


def known_files(
    source: Path,
    recognize: Callable[[Path], str | None],
    formats: Sequence[str],
) -> dict[str, tuple[Path, str]]:
    """The files of `source` in a format that a family reads, by their names in it, with the format.

    Raises DataError if there is none.
    """
    known = {}
    for file in files(source):
        form = recognize(file)
        if form:
            known[name_in(source, file)] = (file, form)
    if not known:
        raise unknown_format(source, formats)
    return known


TRAIN = "train"
_SPLITS = {
    "train": "train(ing)?",
    "validation": "val(id(ation)?)?|dev",
    "test": "test(ing)?|eval(uation)?",
}
"""Words in the names of files and folders, as the library `datasets` understands them."""
_SHARD = re.compile(r"(?:.*/)?data/(\w+)-\d+-of-\d+\..*")


def by_split(paths: Sequence[str]) -> dict[str, list[str]]:
    """The files of a data set, relative to its folder, by the split that their names say.

    All train where no name tells.
    """
    splits: dict[str, list[str]] = {}
    for path in paths:
        split = _split_of(path)
        if split:
            splits.setdefault(split, []).append(path)
    return splits or {TRAIN: [*paths]}


def _split_of(path: str) -> str | None:
    shard = _SHARD.fullmatch(path)
    if shard:
        return shard[1]
    for part in reversed(path.lower().split("/")):
        for split, words in _SPLITS.items():
            if re.search(f"(?<![a-z])({words})(?![a-z])", part):
                return split
    return None


def name_in(source: Path, file: Path) -> str:
    """The name of a file in a folder; or of `source`, if that is the file."""
    return file.relative_to(source.parent if file == source else source).as_posix()


CACHE_VARIABLE = "GEARSHIFT_CACHE"


def cache_folder() -> Path:
    """The cache folder: $GEARSHIFT_CACHE, or the cache folder of the system."""
    folder = os.environ.get(CACHE_VARIABLE)
    if folder:
        return Path(folder).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches/gearshift").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "gearshift"


_KIND = r"_(data|eeg|ieeg|meg|emg|nirs)"
_COMPANION = re.compile(rf"({_KIND})?(_(events|gt|masks)|-\d+)?\.(?!(log|out|err)$)")
"""After the name of a recording: headers, marks, events, labels and later parts, as the families
name them; no output of a program, such as `launcher --data notes.txt > notes.log`."""


def companions(path: Path) -> Iterator[tuple[str, Path]]:
    """The files beside a file that are read with it, each with what follows the common name.

    Reads the disk. Raises OSError.
    """
    common = re.sub(f"{_KIND}$", "", path.name.partition(".")[0])
    for other in sorted(path.parent.iterdir()):
        rest = other.name.removeprefix(common)
        if other.name in (path.name, rest) or other.is_dir():
            continue
        if _COMPANION.match(rest):
            yield rest, other
