"""Which families read a file, a folder or an embedded set, and in which format that is."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.base.diagnostics import PROGRAM, Diagnostic, SettingsError, nearest_match
from launcher.config.schema import config_of
from models.catalog import FAMILIES, is_custom

_EMBEDDED = "embedded:"


@dataclass(frozen=True)
class Recognised:
    """Data that a family reads."""

    family: str
    format: str | None
    """One of the family's FORMATS; None: it needs no file, or the family was named, or a task."""


def recognise(path: str, family: str | None, place: str) -> list[Recognised]:
    """Who may read what lies at `path`: of all families, or `family` in any case. Reads the disk.

    A format is known by a name or a few bytes, so that several families may take the data for
    theirs. Raises SettingsError with all formats where none does; `place` is where the path was
    typed.
    """
    asked = [*FAMILIES] if family is None else [family]
    if path.startswith(_EMBEDDED):
        return [Recognised(_embedded(path, asked, place), None)]
    if not _exists(path, place):
        raise SettingsError([_missing(path, place)])
    if family is not None and is_custom(family):
        return [Recognised(family, None)]
    if family is not None:  # it says best itself what it misses
        return [Recognised(family, _format(family, path, place))]
    found = [Recognised(one, form) for one in asked if (form := _format(one, path, place))]
    if not found:
        raise SettingsError([_nobody(path, place, asked)])
    return found


def several(path: str, place: str, found: Sequence[Recognised]) -> Diagnostic:
    """What to tell where all of `found` can use the data."""
    known = [f"{one.family}: {one.format}" for one in found]
    return Diagnostic(
        f"'{path}' is data of several families",
        value=path,
        where=place,
        allowed="\n           ".join(known),
        fix=f"{PROGRAM} data check {path} --model {found[0].family}",
    )


def _format(family: str, path: str, place: str) -> str | None:
    try:
        found: str | None = _formats(family).recognise(Path(path).expanduser())
    except OSError as fault:
        what = f"'{fault.filename or path}' cannot be read: {fault.strerror or fault}"
        raise SettingsError([Diagnostic(what, value=path, where=place)]) from fault
    return found


def _formats(family: str) -> Any:
    return importlib.import_module(FAMILIES[family].formats)


def _embedded(path: str, families: Collection[str], place: str) -> str:
    """The family that has a set of that name."""
    sets = {name: family for family in families for name in _sets(family)}
    if path in sets:
        return sets[path]
    near = nearest_match(path, sets)
    raise SettingsError(
        [
            Diagnostic(
                f"there is no embedded data '{path}'",
                value=path,
                where=place,
                allowed=", ".join(sets) or "a file or a folder",
                did_you_mean=near,
                fix=near and f"{PROGRAM} data check {near}",
            )
        ]
    )


def _sets(family: str) -> Collection[str]:
    """The names of a family's data that needs no file; of a task of one's own its default alone."""
    default = getattr(config_of(family).Data(), "path", None)
    own = [default] if isinstance(default, str) and default.startswith(_EMBEDDED) else []
    if is_custom(family):
        return own
    return dict.fromkeys((*own, *_formats(family).EMBEDDED))


def _exists(path: str, place: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except OSError as fault:
        what = f"'{path}' cannot be looked at: {fault.strerror or fault}"
        raise SettingsError([Diagnostic(what, value=path, where=place)]) from fault


def _missing(path: str, place: str) -> Diagnostic:
    folder = Path(path).expanduser().parent
    there = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    near = nearest_match(Path(path).name, there)
    near = near and str(Path(path).parent / near)
    return Diagnostic(
        f"there is no file or folder '{path}'",
        value=path,
        where=place,
        did_you_mean=near,
        fix=near and f"{PROGRAM} data check {near}",
    )


def _nobody(path: str, place: str, families: Collection[str]) -> Diagnostic:
    known = [f"{family}: {'; '.join(_formats(family).FORMATS)}" for family in families]
    return Diagnostic(
        f"'{path}' is in no format that is known here",
        value=path,
        where=place,
        allowed="\n           ".join(known),
    )
