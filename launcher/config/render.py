"""Resolved settings as text: settings.yaml, origins.json, and a tree with origins."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Any

from gearshift.launcher.base.diagnostics import plain
from gearshift.launcher.config import paths
from gearshift.launcher.config.batching import ACCUMULATION
from gearshift.launcher.config.provenance import (
    CLI_LAYER,
    FILES_LAYER,
    Origin,
    Resolved,
    Setting,
    Values,
)
from gearshift.launcher.config.settings_file import MAPPINGS, parse_yaml_scalar
from gearshift.training.settings import nested

SETTINGS = "settings.yaml"
ORIGINS = "origins.json"
_BARE = re.compile(r"[A-Za-z0-9_./](?:[A-Za-z0-9_./%+ -]|:(?! |$))*(?<! )")


def render_settings(resolved: Resolved) -> str:
    """The text of settings.yaml: every setting as resolved.

    Fed back with --config it resolves to the same settings, for any number of processes:
    accumulation is left out, as global batch and micro-batch give it. Paths are absolute. Reads the
    disk.
    """
    values = paths.kept_values(resolved.values)
    del values[ACCUMULATION]
    head = "# Resolved settings of a run; repeat it with  --config settings.yaml"
    return "\n".join([head, *_lines(nested(values)), ""])


def origins_as_json(values: Values) -> dict[str, dict[str, Any]]:
    """Each key with its value, where that came from, and what it replaced, newest first."""
    origins = {}
    for key, setting in values.items():
        entries: list[dict[str, Any]] = []
        for value, origin in setting.all_values:
            entries.append({"value": value, "origin": origin.where, "layer": origin.layer})
            if origin.how:
                entries[-1]["how"] = origin.how
        origins[key] = {**entries[0], "replaced": entries[1:]}
    return origins


def render_origins(resolved: Resolved) -> str:
    """The text of origins.json: paths are absolute. Reads the disk."""
    origins = origins_as_json(resolved.values)
    for key, value in paths.kept_values(resolved.values).items():
        origins[key]["value"] = value
    return json.dumps(origins, indent=1) + "\n"


def render_scalar(value: Any) -> str:
    """A value in YAML's flow style, on one line, that reads back as itself."""
    if isinstance(value, str):
        is_bare = _BARE.fullmatch(value) is not None
        with suppress(ValueError):  # a number with two readings
            if is_bare and parse_yaml_scalar(value) == value:
                return value
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False)
    return plain(value)


def _lines(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The lines of a tree below the dotted `prefix`."""
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        if isinstance(value, dict) and f"{prefix}{name}" not in MAPPINGS:
            yield f"{indent}{name}:"
            yield from _lines(value, f"{prefix}{name}.")
        else:
            yield f"{indent}{name}: {render_scalar(value)}"


_NAME = 27
_VALUE = 20


def render_tree(values: Values, history: bool) -> str:
    """The settings by section; with `history` each value that a layer replaced, newest first."""
    general_first = dict(sorted(values.items(), key=lambda item: "." in item[0]))
    return "\n".join(_rows(nested(general_first), "", history)) + "\n"


def _rows(tree: Mapping[str, Any], indent: str, history: bool) -> Iterator[str]:
    """A line for each section, setting and replaced value of a tree."""
    for name, setting in tree.items():
        left = f"{indent}{name}"
        if isinstance(setting, Setting):
            origin = describe_origin(setting.origin)
            yield f"{left:<{_NAME}} {plain(setting.value):<{_VALUE}} {origin}"
            for line in describe_overridden(setting) if history else ():
                yield f"{'':<{_NAME}} {'':<{_VALUE}}   replaced {line}"
            continue
        if not indent:
            yield ""
        yield left
        yield from _rows(setting, f"{indent}  ", history)


def describe_overridden(value: Setting) -> list[str]:
    """The values that a value replaced, a line each, newest first; equal ones are left out."""
    lines = []
    for (new, _), (old, origin) in pairwise(value.all_values):
        if old != new:
            lines.append(f"{plain(old)} of {describe_origin(origin)}")
    return lines


def describe_origin(origin: Origin) -> str:
    """Where a value was written, by which layer where the place does not say it, and from what."""
    how = f": {origin.how}" if origin.how else ""
    if origin.layer in (origin.where, FILES_LAYER, CLI_LAYER):
        return origin.where + how
    return f"{origin.where} ({origin.layer}){how}"
