"""Tables of settings: all of a section or of a family, with types, values and defaults."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.figures import markdown
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config import adapt, batching, presets
from gearshift.launcher.config.errors import allowed
from gearshift.launcher.config.provenance import as_list
from gearshift.launcher.config.schema import SettingInfo, setting_infos
from gearshift.launcher.plan.ladder import RUNGS
from gearshift.models.catalog import FAMILIES

GENERAL = "general"
"""The section of settings without one."""
GROUPS = {
    "run": (GENERAL, "engine", "memory"),
    "training": ("train", "optim", "schedule"),
    "evaluation": ("eval", "stop", "save"),
    "reading": ("loader", "feature_cache", "download"),
    "watching": ("log", "limits", "track", "tracking", "report"),
    "continual": ("continual",),
}
"""Sections that share a table, by its name."""
OF_FAMILY = ("model", "data")
"""The sections that differ between families."""
HEADS = ("setting", "values", "default", "meaning")
SHARED_BY = 3
"""Families that must share a setting of these sections for one row of all."""


def common(group: str) -> list[str]:
    """A row for each setting of a group of sections that all families share."""
    infos = setting_infos(next(iter(FAMILIES))).values()
    sections_of = GROUPS[group]
    return markdown(HEADS, (_row(i, i.default) for i in infos if _section(i.key) in sections_of))


def of_several() -> list[str]:
    """A row for each setting of `model` and `data` that several families share."""
    found = {row: some for row, some in _families_of_rows().items() if len(some) >= SHARED_BY}
    ends = {
        row: "" if len(some) == len(FAMILIES) else f" ({', '.join(some)})"
        for row, some in found.items()
    }
    return markdown(HEADS, ([*row[:-1], row[-1] + end] for row, end in ends.items()))


def of_family(family: str) -> list[str]:
    """A row for each other setting of the sections `model` and `data` of a family."""
    rows = _families_of_rows().items()
    return markdown(HEADS, (row for row, some in rows if family in some and len(some) < SHARED_BY))


def _families_of_rows() -> dict[tuple[str, ...], list[str]]:
    """The families that have a row of `model` or `data`, in the order of the first one."""
    families: dict[tuple[str, ...], list[str]] = {}
    for family in FAMILIES:
        file = {line.key: line.value for line in presets.family(family).block("default")}
        for info in setting_infos(family).values():
            if _section(info.key) in OF_FAMILY:
                default = "by `--model`" if info.key == "model.family" else info.default
                row = _row(info, file.get(info.key, default))
                families.setdefault(row, []).append(family)
    return families


def _row(info: SettingInfo, default: Any) -> tuple[str, ...]:
    values = _values(info) + (f", in {info.unit}" if info.unit else "")
    cells = (f"`{info.key}`", values, plain(default), info.description)
    return tuple(cell.replace("|", "\\|") for cell in cells)


def _values(leaf: SettingInfo) -> str:
    """The type of a setting and what it may be."""
    if leaf.type == "length":
        return "a [length](#lengths-and-intervals)" + (", or null" if leaf.nullable else "")
    if isinstance(leaf.allowed, tuple):
        options = ", ".join(f"`{option}`" for option in leaf.allowed)
        return f"one of {options}" + (", or null" if leaf.nullable else "")
    text = allowed(leaf)
    return text if leaf.allowed is None else f"{leaf.type}: {text}"


def _section(key: str) -> str:
    return key.partition(".")[0] if "." in key else GENERAL


def ladder() -> list[str]:
    """A row for each rung of `plan` whose settings a family has."""
    known = {key for family in FAMILIES for key in setting_infos(family)}
    rows = []
    for rung in RUNGS:
        if {*rung.change} <= known:
            engines = [e.name for e in ENGINES.values() if e.placement == rung.placement]
            sets = [f"`{key}={plain(value)}`" for key, value in rung.change.items()]
            if rung.is_usual and not sets:
                sets = [f"`{batching.MICRO}`"]
            texts = [*sets, " or ".join(f"`--engine {name}`" for name in engines if not sets)]
            rows.append([rung.name, ", ".join(filter(None, texts)), rung.effect])
    return markdown(["rung", "settings", "effect"], rows)


_KINDS = {"fill": "stays, unless it is `auto`", "prefer": "stays", "reject": "is an error"}
_FACT = re.compile(r"{[^}]+}")


def adaptations() -> list[str]:
    """A row for each rule of the adaptation to the machine."""
    rows = []
    for row in adapt.ROWS:
        conditions = []
        if row.above:
            conditions.append(f"above {row.above.replace('_', ' ')}")
        for name, options in (row.when or {}).items():
            words = f"`{name}`" if "." in name else name.replace("_", " ")
            conditions.append(f"{words} {' or '.join(map(plain, as_list(options)))}")
        new = "…" if row.fact else f"`{plain(row.new)}`"
        reason = _FACT.sub("…", row.reason)
        rows.append([f"`{row.key}`", ", ".join(conditions), new, reason, _KINDS[row.kind]])
    return markdown(["setting", "where", "becomes", "because", "a value of yours"], rows)


TABLES: dict[str, Callable[[], list[str]]] = {
    **{f"settings {group}": partial(common, group) for group in GROUPS},
    "settings several": of_several,
    "ladder": ladder,
    "adaptations": adaptations,
    **{f"settings {family}": partial(of_family, family) for family in FAMILIES},
}
