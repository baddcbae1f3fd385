"""Write the generated parts of README and docs: tables, and the output of commands.

    python -m scripts.write_docs
    python -m scripts.write_docs results

A table or list follows a line `<!-- table: NAME -->` and is replaced up to the next blank line,
with the line below it that says how it was measured. A block of the language `console` has a
command after `$` in its first line; the other lines are the output of that command.
"""

from __future__ import annotations

import ast
import importlib
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

from benchmarks.figures import markdown
from gearshift.engines.catalog import ENGINES
from gearshift.launcher.base import exit_codes
from gearshift.launcher.config import other_tools, presets, provenance
from gearshift.launcher.run.faults import FAULTS
from gearshift.launcher.run_folder import resume_rules
from gearshift.models.catalog import FAMILIES
from scripts import mode_tables, result_tables, setting_tables, structure
from scripts.structure import read

ROOT = Path(__file__).parents[1]
_read = cache(read)
TABLE = re.compile(
    r"(?<=<!-- table: )(?P<name>[a-z_ ]+)(?P<mark> -->\n)(?P<rows>(?:.+\n)*"
    rf"(?:\n{result_tables.MEASURED_BY}.+\n)?)"
)
CONSOLE = re.compile(r"(?<=^```console\n)\$ (?P<command>.+)\n(?:.*\n)*?(?=^```$)", re.MULTILINE)


FIXES = {
    "again": "python -m launcher --config runs/mine/settings.yaml",
    "retry": "python -m launcher resume runs/mine",
    "nonfinite": 'python -m launcher resume runs/mine --set "train.on_nonfinite=skip 9"',
    "workers": "2",
    "lower_lr": "1e-4",
    "higher_lr": "0.01",
    "longer": "--max-steps 300",
    "timeout_s": "2400",
}
"""Values for the commands of the table of faults, as for a run in runs/mine."""
_VALUE = re.compile(r"{\w+}")
_COMMAND = re.compile(r"(python|export|timedatectl)( \S+)+")
"""In the text of a fix, whose words follow two spaces."""


def models() -> list[str]:
    """A row for each family, with its page and the parameters of each size."""
    rows = (
        [
            f"[`{family.name}`]({family.name.replace('_', '-')}.md)",
            family.sentence,
            ", ".join(f"{name} {size.parameters:,}" for name, size in _sizes(family.name).items()),
        ]
        for family in FAMILIES.values()
    )
    return markdown(["family", "task", "sizes with parameters"], rows)


def sizes(family: str) -> list[str]:
    """A row for each size of a family, with its declared numbers."""
    found = _sizes(family)
    names = [
        field.name for field in fields(next(iter(found.values()))) if field.name != "parameters"
    ]
    heads = ["size", "parameters", *(name.replace("_", " ") for name in names)]
    rows = (
        [f"`{n}`", f"{s.parameters:,}", *(_number(getattr(s, x)) for x in names)]
        for n, s in found.items()
    )
    return markdown(heads, rows, numbers=len(heads) - 1)


def _sizes(family: str) -> dict[str, Any]:
    found: dict[str, Any] = importlib.import_module(FAMILIES[family].config).SIZES
    return found


def _number(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_number, value))
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def rules() -> list[str]:
    """A row for each rule about settings of a resumed run."""
    meaning = {
        "free": "may change; each change is an event",
        "never": "cannot change: start a new run",
        **{
            part: f"with `--reset {part}`: {what}"
            for part, what in resume_rules.RESET_EFFECTS.items()
        },
    }
    rules = resume_rules.RULES.items()
    rows = ([", ".join(f"`{start}`" for start in starts), meaning[rule]] for rule, starts in rules)
    return markdown(["settings", "on resume"], rows)


def faults() -> list[str]:
    """A row for each fault, with its message, its likely cause and the next command."""
    rows = (
        [
            f.title,
            f"`{_VALUE.sub('…', f.seen)}`",
            f.cause,
            "; ".join(filter(None, [_COMMAND.sub(r"`\g<0>`", f.fix.format(**FIXES)), f.hint])),
        ]
        for f in FAULTS.values()
    )
    return markdown(["fault", "what you see", "likely cause", "next command"], rows)


def rooms() -> list[str]:
    """A row for each room of launcher/, in import order."""
    tree = _read(ROOT)
    names = {room for m in tree.ours if (room := structure.room(m.name)) is not None}
    order = sorted(names, key=lambda name: (structure.order(name) or 0, name))
    texts = {name: ast.get_docstring(tree.modules[f"launcher.{name}"].tree) or "" for name in order}
    return markdown(
        ["room", "content"], ([f"`{n}`", text.replace("\n", " ")] for n, text in texts.items())
    )


def tools() -> list[str]:
    """A row for each meaning that names of other programs have."""
    meanings: dict[str, list[str]] = {}
    for name, entry in other_tools.table()["settings"].items():
        text = entry
        if not isinstance(entry, str):
            kinds = {"*": "VALUE"}
            text = "; ".join(f"{kinds.get(kind, kind)}: {line}" for kind, line in entry.items())
        meanings.setdefault(re.sub(r"--[^;]+", r"`\g<0>`", text), []).append(name)
    return markdown(["other tools", "here"], ([", ".join(n), t] for t, n in meanings.items()))


TABLES: dict[str, Callable[[], list[str]]] = {
    "engines": lambda: markdown(
        ["engine", "placement of model and state"],
        ([f"`{e.name}`", e.sentence] for e in ENGINES.values()),
    ),
    "modes": lambda: markdown(
        ["mode", "description"],
        ([f"`{name}`", presets.mode(name).sentence] for name in presets.modes()),
    ),
    "models": models,
    "sizes language": partial(sizes, "language"),
    "exit codes": lambda: markdown(
        ["code", "meaning"], ([str(code), text] for code, text in exit_codes.MEANINGS.items())
    ),
    "faults": faults,
    "other tools": tools,
    "layers": lambda: [
        f"{number}. {layer}" for number, layer in enumerate(provenance.LAYERS, start=1)
    ],
    "compatibility": rules,
    "syntax": lambda: structure.syntax_table(_read(ROOT)),
    "structure": lambda: structure.table(_read(ROOT)),
    "rooms": rooms,
    **mode_tables.TABLES,
    **setting_tables.TABLES,
    **result_tables.TABLES,
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
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "100"},
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
