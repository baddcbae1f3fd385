"""Figures on the code structure: size, order of rooms, cycles, short files, imports of a run.

python -m scripts.structure [CHECKOUT]
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.source import PACKAGES, Module, Tree, read

ROOMS = (
    *("base", "config", "run_folder", "download", "plan", "run"),
    *("saved_runs", "report", "stages", "features", "commands", "cli"),
)
"""The rooms of launcher/ in import order: each may import those before it."""
FEATURES = ("continual", "compare", "submit", "doctor")
"""The rooms at one level, `features`: none imports another."""
LONGEST_FUNCTION = 100
SHORTEST_FILE = 60
"""A file of fewer lines with a single importer needs a reason."""


def room(name: str) -> str | None:
    """The room of launcher/ that module `name` belongs to; None for others, and for its top."""
    parts = name.split(".")
    if parts[0] != "launcher" or len(parts) == 1 or parts[1] in ("api", "__main__"):
        return None
    return parts[1]


def order(module_name: str) -> int | None:
    """The position of a room in the import order; None: it is not in the table."""
    known = "features" if module_name in FEATURES else module_name
    return ROOMS.index(known) if known in ROOMS else None


def upward_imports(tree: Tree) -> list[str]:
    """Imports inside launcher/ against the order of its rooms, lazy ones counted."""
    found = []
    for module, line, target in _imports(tree):
        own, other = room(module.name), room(target)
        if other is None and target.split(".")[0] == "launcher" and own is not None:
            found.append(f"{module.path}:{line} imports {target}")
        if own is None or other is None or own == other:
            continue
        mine, theirs = order(own), order(other)
        if mine is None or theirs is None or mine <= theirs:
            found.append(f"{module.path}:{line} imports {target}")
    return found


def folder_cycles(tree: Tree) -> list[str]:
    """Groups of neighbors, folders or files of one folder, that import one another in a circle."""
    graphs: dict[str, dict[str, set[str]]] = {}
    for module, _, target in _imports(tree):
        mine, other = module.name.split("."), target.split(".")
        pairs = enumerate(zip(mine, other, strict=False))
        shared = next((number for number, (a, b) in pairs if a != b), None)
        if shared is None:
            continue  # a folder's own `__init__`
        one, two = ".".join(mine[: shared + 1]), ".".join(other[: shared + 1])
        graphs.setdefault(".".join(mine[:shared]), {}).setdefault(one, set()).add(two)
    return [group for graph in graphs.values() for group in cycles(graph)]


def cycles(graph: dict[str, set[str]]) -> list[str]:
    """The groups of nodes that reach one another, each as `a <-> b`."""
    reach = {node: _reachable(graph, node) for node in graph}
    groups = {frozenset(b for b in reach[a] if a in reach.get(b, ())) for a in graph if a in reach[a]}
    return sorted(" <-> ".join(sorted(group)) for group in groups)


def file_cycles(tree: Tree) -> list[str]:
    """Groups of files that import one another, directly or indirectly."""
    graph: dict[str, set[str]] = {}
    for module, _, target in _imports(tree):
        if target != module.name:
            graph.setdefault(module.name, set()).add(target)
    return cycles(graph)


def long_functions(tree: Tree) -> list[str]:
    """Functions over the longest length, docstring not counted."""
    found = []
    for module in tree.ours:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found.append(f"{module.path}:{node.lineno} {node.name} has {lines} lines")
    return found


def crumbs(tree: Tree) -> list[str]:
    """Short files that a single file imports."""
    importers: dict[str, set[str]] = {}
    for module, _, target in _imports(tree):
        importers.setdefault(target, set()).add(module.name)
    return [
        str(module.path)
        for module in tree.ours
        if not module.is_init
        and module.text.count("\n") < SHORTEST_FILE
        and len(importers.get(module.name, ())) == 1
    ]


def broad_excepts(tree: Tree) -> list[str]:
    """Handlers of Exception or BaseException that do not raise again."""
    found = []
    for module in tree.ours:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "BaseException"
            is_broad = re.search(r"\b(Base)?Exception\b", caught)
            if is_broad and not isinstance(node.body[-1], ast.Raise):
                found.append(f"{module.path}:{node.lineno}")
    return found


def environment_readers(tree: Tree) -> list[str]:
    """Files that name `os.environ` or `os.getenv`."""
    return [
        str(module.path)
        for module in tree.ours
        if any(
            isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv")
            for node in ast.walk(module.tree)
        )
    ]


def undocumented(tree: Tree, package: str) -> tuple[list[str], int]:
    """Public classes, functions and methods of `package` without a docstring, and how many are."""
    missing, count = [], 0
    for module in tree.ours:
        if module.package == package:
            for name, node in _public(module.tree):
                count += 1
                if ast.get_docstring(node) is None:
                    missing.append(f"{module.path}:{node.lineno} {name}")
    return missing, count


def table(tree: Tree) -> list[str]:
    """The figures as rows of Markdown; lines rounded to hundreds, so that they seldom change."""
    packages = {name: [m for m in tree.ours if m.package == name] for name in PACKAGES}
    missing, count = undocumented(tree, "engines")
    rows = [(f"`{name}/`", _size(modules)) for name, modules in packages.items()]
    rows += [
        ("product code, all of these", _size(tree.ours)),
        ("cycles between files", str(len(file_cycles(tree)))),
        ("cycles between folders", str(len(folder_cycles(tree)))),
        ("imports in launcher/ against the order of its rooms", str(len(upward_imports(tree)))),
        (f"functions over {LONGEST_FUNCTION} lines", str(len(long_functions(tree)))),
        (f"files under {SHORTEST_FILE} lines with one importer", str(len(crumbs(tree)))),
        ("public names of engines/ with a docstring", f"{1 - len(missing) / max(count, 1):.0%}"),
        ("broad excepts that do not raise again", str(len(broad_excepts(tree)))),
        ("files that read the environment", str(len(environment_readers(tree)))),
    ]
    return ["| figure | value |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)]


_FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_pre_hook
from launcher.__main__ import main

def show(*_):
    print("imported:", *sys.modules, flush=True)
    os._exit(0)

register_optimizer_step_pre_hook(show)
main(["--model", "language:tiny", "--max-steps", "1"])
"""


def plain_run(tree: Tree, root: Path) -> list[Module]:
    """Our modules that a plain run has imported at its first optimizer step. Starts a process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _FIRST_STEP]
        environ = {**os.environ, "PYTHONPATH": str(root)}
        output = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    names = output.stdout.partition("imported:")[2].split()
    return [tree.modules[name] for name in names if name in tree.modules]


def _size(modules: list[Module]) -> str:
    lines = sum(module.text.count("\n") for module in modules)
    return f"{len(modules)} files, {round(lines, -2):,} lines"


def _imports(tree: Tree) -> Iterator[tuple[Module, int, str]]:
    for module in tree.ours:
        for imported in module.imports:
            if (target := tree.target(imported)) and target.split(".")[0] in PACKAGES:
                yield module, imported.line, target


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    left = list(graph[start])
    while left:
        node = left.pop()
        if node not in seen:
            seen.add(node)
            left.extend(graph.get(node, ()))
    return seen


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(tree: ast.Module) -> Iterator[tuple[str, Definition]]:
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, Definition) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


FINDINGS: dict[str, Callable[[Tree], list[str]]] = {
    "cycles between files": file_cycles,
    "cycles between folders": folder_cycles,
    "imports against the order of rooms": upward_imports,
    "long functions": long_functions,
    "short files with one importer": crumbs,
    "broad excepts": broad_excepts,
    "files that read the environment": environment_readers,
    "undocumented in engines": lambda tree: undocumented(tree, "engines")[0],
}


def main() -> None:
    """Print the figures of a checkout, then the files of each finding."""
    root = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1]
    tree = read(root)
    print("\n".join(table(tree)))
    for name, find in FINDINGS.items():
        print(f"\n{name}:", *(f"  {line}" for line in find(tree)), sep="\n")
    modules = [m for m in plain_run(tree, root) if m.package in PACKAGES]
    print(f"\nimports of a plain run before its first step ({_size(modules)}):")
    for module in sorted(modules, key=lambda module: -module.text.count("\n")):
        print(f"  {module.text.count(chr(10)):5} {module.name}")


if __name__ == "__main__":
    main()
