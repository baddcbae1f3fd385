"""Figures on the code structure: size, order of rooms, cycles, short files.

python -m scripts.structure [CHECKOUT]
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.figures import markdown

PACKAGES = ("slurm", "engines", "models", "training", "launcher", "ds_configs")
AROUND = ("benchmarks", "scripts", "tests")
ROOMS = (
    *("base", "config", "run_folder", "download", "plan", "run"),
    *("saved_runs", "report", "stages", "features", "commands", "cli"),
)
"""The rooms of launcher/ in import order: each may import those before it."""
FEATURES = ("continual", "compare", "submit")
"""The rooms at one level, `features`: none imports another."""
SHORTEST_FILE = 60
"""A file of fewer lines with a single importer needs a reason."""


@dataclass(frozen=True)
class Module:
    """One Python file of the tree, named by its `path` from the root; imports begin with gearshift."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The folder at the root of the tree that contains it."""
        return self.name.split(".")[0]

    @property
    def lines(self) -> int:
        """Its lines of text."""
        return self.text.count("\n")

    @cached_property
    def nodes(self) -> int:
        """Its syntax nodes."""
        return sum(1 for _ in ast.walk(self.tree))

    @cached_property
    def imports(self) -> list[tuple[int, str, str]]:
        """Everything it imports, at any depth: line, module, and module with the imported name."""
        found = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:  # ruff refuses relative ones
                found += [(node.lineno, node.module, f"{node.module}.{a.name}") for a in node.names]
        return found


@dataclass(frozen=True)
class Tree:
    """All modules of a checkout, by dotted name."""

    root: Path
    modules: dict[str, Module]

    @property
    def ours(self) -> list[Module]:
        """The modules of the shipped packages."""
        return [m for m in self.modules.values() if m.package in PACKAGES]

    @cached_property
    def edges(self) -> list[tuple[Module, int, str]]:
        """The imports between modules of the shipped packages: module, line, imported module."""
        found = []
        for module in self.ours:
            for line, *names in module.imports:
                base, dotted = (name.removeprefix("gearshift.") for name in names)
                target = dotted if dotted in self.modules else base
                if target in self.modules and target.split(".")[0] in PACKAGES:
                    found.append((module, line, target))
        return found


def read(root: Path) -> Tree:
    """Parse every Python file below the known folders of `root`."""
    modules = {}
    for folder in (*PACKAGES, *AROUND):
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            text = path.read_text(encoding="utf-8")
            modules[name] = Module(name, relative, text, ast.parse(text, str(relative)))
    return Tree(root, modules)


def room(name: str) -> str | None:
    """The room of launcher/ that module `name` belongs to; None for others, and for its top."""
    parts = name.split(".")
    return (
        parts[1]
        if parts[0] == "launcher" and parts[1:] and parts[1] not in ("api", "__main__")
        else None
    )


def order(module_name: str) -> int | None:
    """The position of a room in the import order; None: it is not in the table."""
    known = "features" if module_name in FEATURES else module_name
    return ROOMS.index(known) if known in ROOMS else None


def upward_imports(tree: Tree) -> list[str]:
    """Imports inside launcher/ against the order of its rooms, lazy ones counted."""
    found = []
    for module, line, target in tree.edges:
        own = room(module.name)
        other = room(target)
        if own is None or target.split(".")[0] != "launcher" or own == other:
            continue
        mine = order(own)
        theirs = None if other is None else order(other)
        if mine is None or theirs is None or mine <= theirs:
            found.append(f"{module.path}:{line} imports {target}")
    return found


def folder_cycles(tree: Tree) -> list[str]:
    """Groups of neighbors, folders or files of one folder, that import one another in a circle."""
    graphs: dict[str, list[tuple[str, str]]] = {}
    for module, _, target in tree.edges:
        mine = module.name.split(".")
        other = target.split(".")
        pairs = enumerate(zip(mine, other, strict=False))
        shared = next((number for number, (a, b) in pairs if a != b), None)
        if shared is not None:  # None: a folder's own `__init__`
            edge = ".".join(mine[: shared + 1]), ".".join(other[: shared + 1])
            graphs.setdefault(".".join(mine[:shared]), []).append(edge)
    return [group for edges in graphs.values() for group in cycles(edges)]


def file_cycles(tree: Tree) -> list[str]:
    """Groups of files that import one another, directly or indirectly."""
    return cycles(
        (module.name, target) for module, _, target in tree.edges if target != module.name
    )


def cycles(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The groups of nodes that reach one another, each as `a <-> b`."""
    reach: dict[str, set[str]] = {}
    for start, end in edges:
        reach.setdefault(start, set()).add(end)
    has_grown = True
    while has_grown:
        has_grown = False
        for nodes in reach.values():
            more = set().union(*(reach.get(node, ()) for node in nodes))
            has_grown |= not more <= nodes
            nodes |= more
    groups = {
        frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in reach if a in reach[a]
    }
    return sorted(" <-> ".join(sorted(group)) for group in groups)


def crumbs(tree: Tree) -> list[str]:
    """Short files that a single file imports."""
    importers: dict[str, set[str]] = {}
    for module, _, target in tree.edges:
        importers.setdefault(target, set()).add(module.name)
    short = [m for m in tree.ours if m.lines < SHORTEST_FILE and m.path.name != "__init__.py"]
    return [str(module.path) for module in short if len(importers.get(module.name, ())) == 1]


def broad_excepts(tree: Tree) -> list[str]:
    """Handlers of Exception or BaseException that do not raise again."""
    return [
        f"{module.path}:{node.lineno}"
        for module in tree.ours
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and not isinstance(node.body[-1], ast.Raise)
        if node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type))
    ]


def table(tree: Tree) -> list[str]:
    """The figures as rows of Markdown; lines rounded to hundreds, so that they seldom change."""
    rows = [(f"`{name}/`", _size(m for m in tree.ours if m.package == name)) for name in PACKAGES]
    rows.append(("product code, all of these", _size(tree.ours)))
    rows += [(name, str(len(find(tree)))) for name, find in FINDINGS.items()]
    return markdown(["figure", "value"], rows, numbers=1)


def _size(modules: Iterable[Module]) -> str:
    lines = [module.lines for module in modules]
    return f"{len(lines)} files, {round(sum(lines), -2):,} lines"


FINDINGS: dict[str, Callable[[Tree], list[str]]] = {
    "cycles between files": file_cycles,
    "cycles between folders": folder_cycles,
    "imports in launcher/ against the order of its rooms": upward_imports,
    f"files under {SHORTEST_FILE} lines with one importer": crumbs,
    "broad excepts that do not raise again": broad_excepts,
}


def main() -> None:
    """Print the figures of a checkout, its syntax nodes, and the files of each finding."""
    tree = read(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
    print("\n".join(table(tree)), "\n\nsyntax nodes:")
    for package in (*PACKAGES, *AROUND):
        nodes = (
            sum(1 for _ in ast.walk(m.tree)) for m in tree.modules.values() if m.package == package
        )
        print(f"  {sum(nodes):9,} {package}")
    for name, find in FINDINGS.items():
        print(f"\n{name}:", *(f"  {line}" for line in find(tree)), sep="\n")


if __name__ == "__main__":
    main()
