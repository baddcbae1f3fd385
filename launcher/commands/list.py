"""The command `list`: models, modes, engines or recipes, and whether an engine runs here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base.diagnostics import SettingsError, program_line
from gearshift.launcher.commands import output
from gearshift.launcher.config import presets
from gearshift.launcher.config.command_line import CommandLine
from gearshift.launcher.config.schema import AUTO, config_of
from gearshift.launcher.run_folder import run_folder
from gearshift.models.catalog import FAMILIES
from gearshift.training.callbacks.base import Facts, Json

_BY = "--by"
_RUNS = "runs"


def main(command_line: CommandLine) -> int:
    """Print the list; the exit code. Raises SettingsError."""
    kinds = {"models": models, "modes": modes, "engines": engines, "recipes": recipes}
    kind = command_line.argument
    metric = command_line.values.get(_BY)
    if kind == _RUNS:
        return _show_runs(command_line, metric)
    if metric:
        raise SettingsError.of(
            f"{_BY} sorts runs",
            value=metric,
            where=f"command line: {_BY} {metric}",
            allowed=f"beside {_RUNS}",
            fix=program_line("list", _RUNS, _BY, metric),
        )
    if kind:
        rows = kinds[kind]()
        return output.show(command_line, rows, "\n".join(_lines(rows)))
    lists = {kind: rows_of() for kind, rows_of in kinds.items()}
    texts = ["\n".join([kind, *_lines(rows)]) for kind, rows in lists.items()]
    return output.show(command_line, lists, "\n\n".join(texts))


def _show_runs(command_line: CommandLine, metric: str | None) -> int:
    """Print the runs of a folder, by start or by a metric. Raises SettingsError."""
    from gearshift.launcher.report import run_list

    folder = Path(command_line.operand or run_folder.PARENT)
    runs = []
    if command_line.operand or folder.is_dir():
        runs = run_list.runs_in(folder)
    if metric:
        runs = run_list.by_metric(runs, metric)
    text = "\n".join(run_list.aligned(run_list.table(runs)))
    return output.show(command_line, list(map(asdict, runs)), text)


def _lines(rows: Sequence[Facts]) -> Iterator[str]:
    width = max(20, *(len(row["name"]) for row in rows))
    for row in rows:
        yield f"{row['name']:<{width}} {row['sentence']}"
        if row.get("runs_here") is False:
            yield f"{'':<20} cannot run here: {row['why_not']}"
        for size in row.get("sizes", []):
            name = f"{row['name']}:{size['name']}"
            yield f"  {name:<23} {size['parameters']:>13,} parameters"
        for stage in row.get("stages", []):
            name = f"stage {stage['name']}"
            yield f"  {name:<23} {stage['sentence']}"


def models() -> list[Json]:
    """The model families with their stages, and their sizes with the number of parameters."""
    rows = []
    for family in FAMILIES.values():
        sizes = [
            {**asdict(size), "name": name, "parameters": size.parameters}
            for name, size in config_of(family.name).SIZES.items()
        ]
        rows.append(
            {
                "name": family.name,
                "sentence": family.sentence,
                "sizes": sizes,
                "stages": list(map(asdict, family.stages)),
            }
        )
    return rows


def modes() -> list[Json]:
    """The modes with their promises, as ratios to mode default."""
    rows = []
    for name in presets.modes():
        mode = presets.mode(name)
        rows.append({"name": name, "sentence": mode.sentence, "promise": dict(mode.promise)})
    return rows


def recipes() -> list[Json]:
    """The recipes, by the names that `--config` takes."""
    recipes = presets.recipes().items()
    return [{"name": name, "sentence": recipe.sentence} for name, recipe in recipes]


def engines() -> list[Json]:
    """The engines, and whether their packages are installed; imports none."""
    return [
        *[_engine(engine.name, engine.sentence, engine.needs) for engine in ENGINES.values()],
        _engine(AUTO, "the simplest of these that fits, by a plan", ()),
    ]


def _engine(name: str, sentence: str, needs: Sequence[str]) -> Json:
    # Finding a package, not importing it, which takes seconds.
    missing = [package for package in ("torch", *needs) if find_spec(package) is None]
    reason = f"{', '.join(missing)} not installed; pip install {' '.join(missing)}"
    return {
        "name": name,
        "sentence": sentence,
        "needs": list(needs),
        "runs_here": not missing,
        "why_not": reason if missing else None,
    }
