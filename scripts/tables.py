"""Writes the tables of README and docs from the catalogues that the program uses.

    python -m scripts.tables

A table stands below a line `<!-- table: NAME -->` and is written anew up to the next blank line.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from engines.catalog import ENGINES
from launcher import exit_codes, shipped
from models.catalog import FAMILIES

ROOT = Path(__file__).parents[1]
TABLE = re.compile(r"(?<=<!-- table: )(?P<name>[a-z ]+)(?P<mark> -->\n)(?P<rows>(?:\|.*\n)*)")


def engines() -> list[str]:
    """A row for each engine."""
    head = ["| engine | how the work is laid out |", "|---|---|"]
    return head + [f"| `{e.name}` | {e.sentence} |" for e in ENGINES.values()]


def modes() -> list[str]:
    """A row for each mode."""
    head = ["| mode | what it does |", "|---|---|"]
    return head + [f"| `{name}` | {shipped.mode(name).sentence} |" for name in shipped.modes()]


def language_sizes() -> list[str]:
    """A row for each size of the language family."""
    sizes = importlib.import_module(FAMILIES["language"].config).SIZES
    head = [
        "| size | parameters | width | layers | heads | vocabulary | context |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    return head + [
        f"| `{name}` | {s.parameters:,} | {s.width} | {s.layers} | {s.heads} "
        f"| {s.vocabulary:,} | {s.context} |"
        for name, s in sizes.items()
    ]


def codes() -> list[str]:
    """A row for each exit code."""
    head = ["| code | meaning |", "|---:|---|"]
    return head + [f"| {code} | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]


TABLES: dict[str, Callable[[], list[str]]] = {
    "engines": engines,
    "modes": modes,
    "sizes language": language_sizes,
    "exit codes": codes,
}


def pages() -> Iterable[Path]:
    """README, the change notes and every page of docs."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def written(page: str) -> str:
    """`page` with every table as the catalogues have it now. Raises KeyError for other tables."""

    def table(match: re.Match[str]) -> str:
        rows = "\n".join(TABLES[match["name"]]())
        return f"{match['name']}{match['mark']}{rows}\n"

    return TABLE.sub(table, page)


def main() -> None:
    """Write the tables of every page."""
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if written(text) != text:
            path.write_text(written(text), encoding="utf-8")
            print(f"wrote the tables of {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
