"""The command `list`: models, modes or engines, and whether an engine can run here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from engines.catalog import ENGINES
from launcher.config import presets
from launcher.config.command_line import CommandLine
from launcher.config.schema import AUTO, config_of
from models.catalog import FAMILIES


def main(command_line: CommandLine) -> int:
    """Print the list; the exit code. Raises SettingsError."""
    chosen = command_line.argument
    kinds = (models, modes, engines)
    lists = {rows.__name__: rows() for rows in kinds if chosen in (rows.__name__, "")}
    if command_line.as_json:
        print(json.dumps(lists[chosen] if chosen else lists, indent=2))
        return 0
    for number, (kind, rows) in enumerate(lists.items()):
        if not chosen:
            print("\n" * bool(number) + kind)
        _print(rows)
    return 0


def _print(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        print(f"{row['name']:<20} {row['sentence']}")
        if row.get("runs_here") is False:
            print(f"{'':<20} cannot run here: {row['why_not']}")
        for size in row.get("sizes", []):
            context = f", context {size['context']}" if "context" in size else ""
            name = f"{row['name']}:{size['name']}"
            print(f"  {name:<23} {size['parameters']:>13,} parameters{context}")
        for stage in row.get("stages", []):
            optional = " (optional)" if stage["optional"] else ""
            print(f"  {'stage ' + stage['name']:<23} {stage['sentence']}{optional}")


def models() -> list[dict[str, Any]]:
    """The model families with their stages, and their sizes with the number of parameters."""
    return [
        {
            "name": family.name,
            "sentence": family.sentence,
            "sizes": [
                {**asdict(size), "name": name, "parameters": size.parameters}
                for name, size in config_of(family.name).SIZES.items()
            ],
            "stages": [asdict(stage) for stage in family.stages],
        }
        for family in FAMILIES.values()
    ]


def modes() -> list[dict[str, Any]]:
    """The modes with their promises, as ratios to mode default."""
    definitions = [presets.mode(name) for name in presets.modes()]
    return [
        {"name": mode.name, "sentence": mode.sentence, "promise": dict(mode.promise)} for mode in definitions
    ]


def engines() -> list[dict[str, Any]]:
    """The engines, and whether their packages are installed; imports none."""
    rows = [_engine(entry.name, entry.sentence, entry.needs) for entry in ENGINES.values()]
    return [*rows, _engine(AUTO, "the fastest of these that fits, by a plan", ())]


def _engine(name: str, sentence: str, needs: Sequence[str]) -> dict[str, Any]:
    missing = [package for package in ("torch", *needs) if importlib.util.find_spec(package) is None]
    reason = f"{', '.join(missing)} not installed; pip install {' '.join(missing)}"
    return {
        "name": name,
        "sentence": sentence,
        "needs": list(needs),
        "runs_here": not missing,
        "why_not": reason if missing else None,
    }
