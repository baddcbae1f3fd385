"""Which family reads a file, a folder or an embedded set, and in which format that is."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.messages import PROGRAM, Fault, SettingsError, nearest
from launcher.settings.schema import config_of
from models.catalog import FAMILIES, is_own

_EMBEDDED = "embedded:"


@dataclass(frozen=True)
class Recognised:
    """Data that a family reads."""

    family: str
    format: str | None
    """One of the family's FORMATS; None: it needs no file, or a task of one's own reads it."""


def recognise(path: str, family: str | None, place: str) -> Recognised:
    """Who reads what lies at `path`, of all families, or whether `family` does. Reads the disk.

    Raises SettingsError with the formats that are known where nobody does, and with all families
    that do where several do; `place` is where the path was typed.
    """
    asked = [*FAMILIES] if family is None else [family]
    if path.startswith(_EMBEDDED):
        return Recognised(_embedded(path, asked, place), None)
    if not _exists(path, place):
        raise SettingsError([_missing(path, place)])
    if family is not None and is_own(family):
        return Recognised(family, None)
    found = [(one, form) for one in asked if (form := _format(one, path, place)) is not None]
    if len(found) == 1:
        return Recognised(*found[0])
    raise SettingsError([_several(path, place, found) if found else _nobody(path, place, asked)])


def _format(family: str, path: str, place: str) -> str | None:
    try:
        found: str | None = _formats(family).recognise(Path(path).expanduser())
    except OSError as fault:
        what = f"'{fault.filename or path}' cannot be read: {fault.strerror or fault}"
        raise SettingsError([Fault(what, value=path, place=place)]) from fault
    return found


def _formats(family: str) -> Any:
    return importlib.import_module(FAMILIES[family].formats)


def _embedded(path: str, families: Collection[str], place: str) -> str:
    """The family that has a set of that name."""
    sets = {name: family for family in families for name in _sets(family)}
    if path in sets:
        return sets[path]
    near = nearest(path, sets)
    raise SettingsError(
        [
            Fault(
                f"there is no embedded data '{path}'",
                value=path,
                place=place,
                legal=", ".join(sets) or "a file or a folder",
                nearest=near,
                mend=near and f"write  {PROGRAM} data check {near}",
            )
        ]
    )


def _sets(family: str) -> Collection[str]:
    """The names of a family's data that needs no file; of a task of one's own its default alone."""
    default = getattr(config_of(family).Data(), "path", None)
    own = [default] if isinstance(default, str) and default.startswith(_EMBEDDED) else []
    if is_own(family):
        return own
    return dict.fromkeys((*own, *getattr(_formats(family), "EMBEDDED", ())))


def _exists(path: str, place: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except OSError as fault:
        what = f"'{path}' cannot be looked at: {fault.strerror or fault}"
        raise SettingsError([Fault(what, value=path, place=place)]) from fault


def _missing(path: str, place: str) -> Fault:
    folder = Path(path).expanduser().parent
    there = [one.name for one in folder.iterdir()] if folder.is_dir() else []
    near = nearest(Path(path).name, there)
    near = near and str(Path(path).parent / near)
    return Fault(
        f"there is no file or folder '{path}'",
        value=path,
        place=place,
        nearest=near,
        mend=near and f"write  {PROGRAM} data check {near}",
    )


def _nobody(path: str, place: str, families: Collection[str]) -> Fault:
    known = [f"{family}: {'; '.join(_formats(family).FORMATS)}" for family in families]
    return Fault(
        f"'{path}' is in no format that is known here",
        value=path,
        place=place,
        legal="\n           ".join(known),
    )


def _several(path: str, place: str, found: Collection[tuple[str, str]]) -> Fault:
    known = [f"{family}: {form}" for family, form in found]
    return Fault(
        f"'{path}' is data of several families",
        value=path,
        place=place,
        legal="\n           ".join(known),
        mend=f"write  {PROGRAM} data check {path} --model {next(iter(found))[0]}",
    )
