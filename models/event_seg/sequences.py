"""Choice of recordings by the names of their sequences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

from models.base import DataError

_ENDING = "_data"
"""End of the file name of an MVSEC sequence."""
_LISTED = 30
"""Maximum number of names in an error."""


def choose(paths: Sequence[str], names: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The recordings among `paths` that `names` lists, in the order of `paths`, as facts too.

    A name is that of a sequence, a file or a path. Raises DataError if a name has no recording or
    several.
    """
    chosen = sorted({_find(paths, name, names) for name in names}, key=paths.index)
    return chosen, _facts(chosen, paths, "data.sequences")


def choose_one(paths: Sequence[str], preferred: str) -> tuple[list[str], dict[str, Any]]:
    """The recording of the `preferred` sequence, otherwise the first path, and why, as facts."""
    chosen = [path for path in paths if preferred in _names(path)][:1]
    if chosen:
        return chosen, _facts(chosen, paths, "data.mvsec_sequence")
    why = f"the first by name, because none is '{preferred}', data.mvsec_sequence"
    return [paths[0]], _facts(paths[:1], paths, why)


def _facts(chosen: Sequence[str], paths: Sequence[str], why: str) -> dict[str, Any]:
    return {"sequences": f"{len(chosen)} of {len(paths)}: {', '.join(chosen)} ({why})"}


def _names(path: str) -> tuple[str, ...]:
    """All names of a recording, the shortest first."""
    file = PurePosixPath(path)
    return file.stem.removesuffix(_ENDING), file.stem, file.name, path


def _find(paths: Sequence[str], name: str, names: Sequence[str]) -> str:
    found = [path for path in paths if name in _names(path)]
    if len(found) == 1 or name in found:
        return name if name in found else found[0]
    counts = Counter(other for path in paths for other in set(_names(path)))
    options = [next((n for n in _names(path) if counts[n] == 1), path) for path in paths]
    among = [option for option, path in zip(options, paths, strict=True) if path in found]
    near = get_close_matches(name, among or options, n=1, cutoff=0.0)[0]
    more = f" and {len(options) - _LISTED} more" if len(options) > _LISTED else ""
    raise DataError(
        f"{len(found)} recordings are called '{name}'" if found else f"unknown recording '{name}'",
        where="data.sequences",
        allowed=", ".join(options[:_LISTED]) + more,
        did_you_mean=near,
        fix=f"--set 'data.sequences=[{', '.join(near if n == name else n for n in names)}]'",
    )
