"""The command `list`: models, modes or engines, and whether an engine can run here."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.commands import output
from gearshift.launcher.config import presets
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.schema import AUTO, config_of
from gearshift.models.catalog import FAMILIES


def main(command_line: CommandLine) -> int:
    """Print the list; the exit code. Raises SettingsError."""
    kinds = {"models": models, "modes": modes, "engines": engines}
    if chosen := command_line.argument:
        rows = kinds[chosen]()
        return output.show(command_line, rows, "\n".join(_lines(rows)))
    lists = {kind: rows() for kind, rows in kinds.items()}
    texts = ("\n".join([kind, *_lines(rows)]) for kind, rows in lists.items())
    return output.show(command_line, lists, "\n\n".join(texts))


def _lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield f"{row['name']:<20} {row['sentence']}"
        if row.get("runs_here") is False:
            yield f"{'':<20} cannot run here: {row['why_not']}"
        for size in row.get("sizes", []):
            context = f", context {size['context']}" if "context" in size else ""
            name = f"{row['name']}:{size['name']}"
            yield f"  {name:<23} {size['parameters']:>13,} parameters{context}"
        for stage in row.get("stages", []):
            optional = " (optional)" if stage["optional"] else ""
            yield f"  {'stage ' + stage['name']:<23} {stage['sentence']}{optional}"


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
    found = ((name, presets.mode(name)) for name in presets.modes())
    return [{"name": name, "sentence": m.sentence, "promise": dict(m.promise)} for name, m in found]


def engines() -> list[dict[str, Any]]:
    """The engines, and whether their packages are installed; imports none."""
    rows = []
    auto = (AUTO, "the fastest of these that fits, by a plan", ())
    for name, sentence, needs in (*((e.name, e.sentence, e.needs) for e in ENGINES.values()), auto):
        missing = [
            package for package in ("torch", *needs) if importlib.util.find_spec(package) is None
        ]
        reason = (
            f"{', '.join(missing)} not installed; pip install {' '.join(missing)}"
            if missing
            else None
        )
        row = {"name": name, "sentence": sentence, "needs": list(needs)}
        rows.append({**row, "runs_here": not missing, "why_not": reason})
    return rows
