"""Tables of settings: all of a section or of a family, with types, values and defaults."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from launcher.base.diagnostics import plain
from launcher.config import presets
from launcher.config.errors import allowed
from launcher.config.provenance import flatten
from launcher.config.schema import SettingInfo, sections, setting_infos
from launcher.config.settings_file import node_value
from models.catalog import FAMILIES

GENERAL = "general"
"""The table of settings without a section."""
OF_FAMILY = ("model", "data")
"""The sections that differ between families."""


def common(section: str) -> list[str]:
    """A row for each setting of a `section` that all families share; GENERAL: of none."""
    infos = setting_infos(next(iter(FAMILIES))).values()
    return _table((leaf, plain(leaf.default)) for leaf in infos if _section(leaf.key) == section)


def of_family(family: str) -> list[str]:
    """A row for each setting of the sections `model` and `data` of a family."""
    file = _defaults(family)
    return _table(
        (leaf, plain(file.get(leaf.key, leaf.default)))
        for leaf in setting_infos(family).values()
        if _section(leaf.key) in OF_FAMILY
    )


def defaults() -> list[str]:
    """A row for each shared setting that a family's file sets, a column for each family."""
    files = {family: _defaults(family) for family in FAMILIES}
    shared = [key for key in setting_infos(next(iter(FAMILIES))) if _section(key) not in OF_FAMILY]
    head = f"| setting | {' | '.join(f'`{family}`' for family in files)} |"
    return [head, "|---|" + "---|" * len(files)] + [
        f"| `{key}` | "
        + " | ".join(plain(file[key]) if key in file else "–" for file in files.values())
        + " |"
        for key in shared
        if any(key in file for file in files.values())
    ]


def _table(rows: Iterable[tuple[SettingInfo, str]]) -> list[str]:
    head = ["| setting | values | default | meaning |", "|---|---|---|---|"]
    return head + [
        f"| `{leaf.key}` | {_cell(_values(leaf))}{f', in {leaf.unit}' if leaf.unit else ''} "
        f"| {_cell(default)} | {_cell(leaf.description)} |"
        for leaf, default in rows
    ]


def _values(leaf: SettingInfo) -> str:
    """The type of a setting and what it may be."""
    if leaf.type == "length":
        return "a [length](#lengths-and-intervals)" + (", or null" if leaf.nullable else "")
    if isinstance(leaf.allowed, tuple):
        options = ", ".join(f"`{option}`" for option in leaf.allowed)
        return f"one of {options}" + (", or null" if leaf.nullable else "")
    text = allowed(leaf)
    return text if leaf.allowed is None else f"{leaf.type}: {text}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else GENERAL


def _defaults(family: str) -> dict[str, Any]:
    """The values of a family's file, for every size and mode that changes nothing."""
    block = presets.family(family).default
    return {key: node_value(node) for key, node in flatten(block.settings, sections(family))}


def given(family: str) -> list[str]:
    """A row for each value that follows from a setting that the user gives."""
    head = ["| given | setting | default |", "|---|---|---|"]
    return head + [
        f"| `{name}` | `{key}` | {plain(node_value(node))} |"
        for name, block in presets.family(family).given.items()
        for key, node in flatten(block.settings, sections(family))
    ]


TABLES: dict[str, Callable[[], list[str]]] = {
    **{
        f"settings {section}": partial(common, section)
        for section in dict.fromkeys(map(_section, setting_infos(next(iter(FAMILIES)))))
        if section not in OF_FAMILY
    },
    **{f"settings {family}": partial(of_family, family) for family in FAMILIES},
    "settings defaults": defaults,
    "given language": partial(given, "language"),
}
