"""Write the generated parts of README and docs: tables, and the output of commands.

    python -m scripts.write_docs
    python -m scripts.write_docs results

A table or list follows a line `<!-- table: NAME -->` and is replaced up to the next blank
line. A block of the language `console` has a command after `$` in its first line; the other lines
are the output of that command.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import (
    auto_engine,
    data,
    gpu_tables,
    lora,
    monitor,
    out_of_memory,
    outcomes,
    plan_error,
    plan_host,
    plan_peers,
    plan_time,
    start_memory,
    startup_signals,
    step_memory,
    tally,
)
from benchmarks.families import SHOWN
from benchmarks.figures import listed, load, load_memory, load_rows, memory_table, table
from engines.catalog import ENGINES
from launcher.base import exit_codes
from launcher.config import presets, provenance
from launcher.config.originals import Original, all_words, typed_line
from launcher.run_folder import resume_rules
from models.catalog import FAMILIES
from scripts import fault_table, mode_tables, setting_tables, structure, try_versions
from scripts.source import PACKAGES, Module, Tree, read

ROOT = Path(__file__).parents[1]
_read = cache(read)
TABLE = re.compile(r"(?<=<!-- table: )(?P<name>[a-z_ ]+)(?P<mark> -->\n)(?P<rows>(?:.+\n)*)")
CONSOLE = re.compile(r"(?<=^```console\n)\$ (?P<command>.+)\n(?:.*\n)*?(?=^```$)", re.MULTILINE)


def engines() -> list[str]:
    """A row for each engine."""
    head = ["| engine | placement of model and state |", "|---|---|"]
    return head + [f"| `{e.name}` | {e.sentence} |" for e in ENGINES.values()]


def modes() -> list[str]:
    """A row for each mode."""
    head = ["| mode | description |", "|---|---|"]
    return head + [f"| `{name}` | {presets.mode(name).sentence} |" for name in presets.modes()]


def models() -> list[str]:
    """A row for each family, with its page and the parameters of each size."""
    head = ["| family | task | sizes with parameters |", "|---|---|---|"]
    return head + [
        f"| [`{family.name}`]({family.name.replace('_', '-')}.md) | {family.sentence} "
        f"| {', '.join(f'{name} {s.parameters:,}' for name, s in _sizes(family.name).items())} |"
        for family in FAMILIES.values()
    ]


def originals(family: str) -> list[str]:
    """A row for each word of a family's original that has another name here, or none."""
    head = ["| original | here |", "|---|---|"]
    return head + [
        f"| {', '.join(f'`{name}`' for name in o.names)} | "
        + (f"–: {o.remark} |" if o.here is None else _here(o))
        for o in all_words()[family].words
    ]


def _here(original: Original) -> str:
    return f"`{typed_line(original)}`{f'; {original.remark}' if original.remark else ''} |"


def sizes(family: str) -> list[str]:
    """A row for each size of a family, with its declared numbers."""
    found = _sizes(family)
    names = [
        field.name for field in fields(next(iter(found.values()))) if field.name != "parameters"
    ]
    heads = [name.replace("_", " ") for name in names]
    return [
        f"| size | parameters | {' | '.join(heads)} |",
        "|---|---:|" + "---:|" * len(names),
        *(
            f"| `{name}` | {s.parameters:,} | "
            + " | ".join(_number(getattr(s, n)) for n in names)
            + " |"
            for name, s in found.items()
        ),
    ]


def _sizes(family: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module(FAMILIES[family].config).SIZES
    return found


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_number, value))
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def outcome() -> list[str]:
    """The results of each family, from the benchmark."""
    return outcomes.table(load_rows(_results("families"), outcomes.Row)[2], SHOWN).splitlines()


def measured_runs(name: str) -> list[str]:
    """The command that started all runs of a benchmark, and its machine."""
    found = json.loads(_results(name).read_text(encoding="utf-8"))
    return [f"`{found['command']}`, on: {listed(found['machine'])}."]


def codes() -> list[str]:
    """A row for each exit code."""
    head = ["| code | meaning |", "|---:|---|"]
    return head + [f"| {code} | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]


def layers() -> list[str]:
    """The layers of settings, lowest first."""
    return [f"{number}. {layer}" for number, layer in enumerate(provenance.LAYERS, start=1)]


def rules() -> list[str]:
    """A row for each rule about settings of a resumed run."""
    head = ["| settings | on resume |", "|---|---|"]
    meaning = {
        "free": "may change; each change is an event",
        "never": "cannot change: start a new run",
        **{
            part: f"with `--reset {part}`: {what}"
            for part, what in resume_rules.RESET_EFFECTS.items()
        },
    }
    return head + [
        f"| {', '.join(f'`{start}`' for start in starts)} | {meaning[rule]} |"
        for rule, starts in resume_rules.RULES.items()
    ]


def imports() -> list[str]:
    """A row for each package that imports others of ours, from the imports of every file."""
    tree = _read(ROOT)
    edges = sorted({edge for module in tree.ours for edge in _edges(tree, module.name)})
    targets = {
        name: [f"`{target}`" for start, target in edges if start == name] for name in PACKAGES
    }
    rows = [f"| `{name}/` | {', '.join(found)} |" for name, found in targets.items() if found]
    return ["| package | imports |", "|---|---|", *reversed(rows)]


def _edges(tree: Tree, name: str) -> set[tuple[str, str]]:
    module = tree.modules[name]
    targets = {target for i in module.imports if (target := tree.target(i))}
    contracts = {"engines.base", "models.base"}
    return {
        (module.package, t if t in contracts and module.package == "training" else t.split(".")[0])
        for t in targets
        if t.split(".")[0] != module.package
    }


def rooms() -> list[str]:
    """A row for each room of launcher/, in import order."""
    tree = _read(ROOT)
    names = {room for m in tree.ours if (room := structure.room(m.name)) is not None}
    order = sorted(names, key=lambda name: (structure.order(name) or 0, name))
    head = ["| room | content |", "|---|---|"]
    return head + [
        f"| `{name}` | {_sentence(tree.modules[f'launcher.{name}'])} |" for name in order
    ]


def _sentence(module: Module) -> str:
    return (ast.get_docstring(module.tree) or "").replace("\n", " ").replace("|", "\\|")


def figures(name: str, unit: str, part: str | None = None) -> list[str]:
    """A table of measured figures, from a benchmark; `part` selects one of several tables."""
    return table(load(_results(name), part)[2], unit).splitlines()


def memory(name: str) -> list[str]:
    """A table of the measured memory."""
    return memory_table(load_memory(_results(name))).splitlines()


def measured(name: str, part: str | None = None) -> list[str]:
    """The command that made the figures, and its machine."""
    command, where, rows = load(_results(name), part)
    return [f"`{command}`, {rows[0].rounds} rounds, on: {listed(where)}."]


def measured_on_gpu(table: Callable[[list[gpu_tables.Row]], list[str]]) -> list[str]:
    """A table of the benchmark on a GPU, if it was run."""
    path = _results("gpu")
    return table(load_rows(path, gpu_tables.Row)[2]) if path.exists() else gpu_tables.NOT_MEASURED


def versions() -> list[str]:
    """A row for each version of Python and torch that was tried."""
    return try_versions.table(load_rows(_results("versions"), try_versions.Row)[2]).splitlines()


def killed() -> list[str]:
    """The counts of killed runs."""
    return tally.table(tally.load(_results("crash"))[2]).splitlines()


def costs(module: Any) -> list[str]:
    """The table of a benchmark with rows of its own."""
    return str(module.table(load_rows(_results_of(module), module.Row)[2])).splitlines()


def measured_costs(module: Any, repeated: str) -> list[str]:
    """The measuring command, its number of repeats, and its machine."""
    command, where, rows = load_rows(_results_of(module), module.Row)
    return [f"`{command}`, {getattr(rows[0], repeated):,} {repeated}, on: {listed(where)}."]


def _results_of(module: Any) -> Path:
    return _results(module.__name__.rpartition(".")[2])


def _results(name: str) -> Path:
    return ROOT / "benchmarks" / "results" / f"{name}.json"


TABLES: dict[str, Callable[[], list[str]]] = {
    "engines": engines,
    "modes": modes,
    **mode_tables.TABLES,
    **setting_tables.TABLES,
    "models": models,
    "sizes language": partial(sizes, "language"),
    "outcomes": outcome,
    "measured outcomes": partial(measured_runs, "families"),
    **{f"originals {family}": partial(originals, family) for family in all_words()},
    "readers": partial(costs, data),
    "measured readers": partial(measured_costs, data, "rounds"),
    "figures voxels": partial(figures, "voxels", "ms for 1,000,000 events"),
    **{
        f"figures encoded {part}": partial(figures, "encoded", "ms/step", part)
        for part in ("one by one", "together")
    },
    "measured encoded": partial(measured, "encoded", "together"),
    "lora": partial(costs, lora),
    "measured lora": partial(measured_costs, lora, "steps"),
    "plan time": lambda: (
        costs(plan_time) if _results_of(plan_time).exists() else plan_time.NOT_MEASURED
    ),
    "plan host": lambda: (
        costs(plan_host) if _results_of(plan_host).exists() else plan_host.NOT_MEASURED
    ),
    "auto engine": lambda: (
        costs(auto_engine) if _results_of(auto_engine).exists() else auto_engine.NOT_MEASURED
    ),
    "start memory": partial(costs, start_memory),
    "measured start memory": partial(measured_costs, start_memory, "ranks"),
    "out of memory": partial(costs, out_of_memory),
    "measured out of memory": partial(measured_runs, "out_of_memory"),
    "step memory": partial(costs, step_memory),
    "measured step memory": partial(measured_costs, step_memory, "steps"),
    "plan error": partial(costs, plan_error),
    "largest plan errors": lambda: plan_error.largest(
        load_rows(_results_of(plan_error), plan_error.Row)[2]
    ).splitlines(),
    "measured plan error": partial(measured_costs, plan_error, "steps"),
    "plan peers": partial(costs, plan_peers),
    "measured plan peers": partial(measured_costs, plan_peers, "steps"),
    "watching": partial(costs, monitor),
    "measured watching": partial(measured_costs, monitor, "readings"),
    "exit codes": codes,
    "faults": fault_table.table,
    "layers": layers,
    "compatibility": rules,
    "imports": imports,
    "structure": lambda: structure.table(_read(ROOT)),
    "rooms": rooms,
    "figures loop": partial(figures, "loop", "ms/step"),
    "figures engines": partial(figures, "engines", "ms/step"),
    "figures stragglers": partial(figures, "stragglers", "ms/step"),
    "time split": partial(figures, "time_split_cost", "ms/step", "marks"),
    "measured time split": partial(measured, "time_split_cost", "marks"),
    "figures agreement": partial(figures, "agreement", "ms/step"),
    "figures tracking start": partial(figures, "tracking", "ms to the first step", "first step"),
    "figures tracking step": partial(figures, "tracking", "ms a logged step", "logged step"),
    "measured tracking": partial(measured, "tracking", "first step"),
    "figures startup": partial(figures, "startup", "ms to the first step"),
    "figures first save": partial(figures, "checkpoint", "ms blocked", "first"),
    "figures later save": partial(figures, "checkpoint", "ms blocked", "later"),
    "figures load": partial(figures, "checkpoint", "ms", "load"),
    "memory checkpoint": partial(memory, "checkpoint"),
    **{
        f"gpu {table.__name__}": partial(measured_on_gpu, table)
        for table in (gpu_tables.speed, gpu_tables.kernels, gpu_tables.tests)
    },
    "measured gpu": lambda: (
        measured_runs("gpu") if _results("gpu").exists() else gpu_tables.NOT_MEASURED
    ),
    "startup signals": partial(costs, startup_signals),
    "measured startup signals": partial(measured_runs, "startup_signals"),
    "killed": killed,
    "versions": versions,
    "measured killed": partial(measured_runs, "crash"),
    "measured checkpoint": partial(measured, "checkpoint", "later"),
    **{
        f"measured {name}": partial(measured, name)
        for name in ("loop", "engines", "stragglers", "agreement", "startup", "voxels")
    },
}


def pages() -> Iterable[Path]:
    """README, the change notes and every page of docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(page: str) -> str:
    """`page` with current tables and outputs. Raises KeyError for unknown tables."""

    def replacement(match: re.Match[str]) -> str:
        rows = "\n".join(TABLES[match["name"]]())
        return f"{match['name']}{match['mark']}{rows}\n"

    return CONSOLE.sub(_console, TABLE.sub(replacement, page))


def _console(match: re.Match[str]) -> str:
    """A command and its output, errors first, in an empty folder."""
    args = shlex.split(match["command"])
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, *args[1:]],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
            capture_output=True,
            text=True,
        )
    return f"$ {match['command']}\n{done.stderr}{done.stdout}"


def main() -> None:
    """Write every page, or the named ones of docs."""
    wanted = [ROOT / "docs" / f"{name}.md" for name in sys.argv[1:]]
    for path in wanted or pages():
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
