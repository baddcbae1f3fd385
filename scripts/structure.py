"""Figures on the code: its syntax, the order of rooms, cycles, short files.

python -m scripts.structure [CHECKOUT]
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.figures import markdown

PACKAGES = ("slurm", "engines", "models", "training", "launcher", "ds_configs")
AROUND = ("benchmarks", "scripts", "tests")
ROOMS = (
    "base",
    "config",
    "run_folder",
    "download",
    "plan",
    "run",
    "saved_runs",
    "report",
    "stages",
    "features",
    "commands",
    "cli",
)
"""The rooms of launcher/ in import order: each may import those before it."""
FEATURES = ("continual", "compare", "submit")
"""The rooms at one level, `features`: none imports another."""
SHORTEST_FILE = 60
"""A file of fewer lines with a single importer needs a reason."""
LARGEST_FUNCTION = 700
"""In syntax nodes."""
MOST_NAMES = 25
"""Arguments and local names of a function."""
DENSEST_FILE = 11
"""In syntax nodes a code line."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
"""Tokens that are no code."""


@dataclass(frozen=True)
class Module:
    """One Python file of the tree, named by its `path` from the root, without gearshift."""

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
    def nodes(self) -> list[ast.AST]:
        """Its syntax nodes."""
        return list(ast.walk(self.tree))

    @cached_property
    def code_lines(self) -> int:
        """Its lines that are neither blank, nor comments, nor docstrings."""
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in LAYOUT:
                lines.update(range(token.start[0], token.end[0] + 1))
        for node in self.nodes:
            # Also the text below a field, which documents it.
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
                continue
            if isinstance(node.value.value, str):
                lines.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
        return len(lines)

    @property
    def density(self) -> float:
        """Syntax nodes a code line."""
        return len(self.nodes) / max(1, self.code_lines)

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


def dense_files(tree: Tree) -> list[str]:
    """Files with more than DENSEST_FILE syntax nodes a code line."""
    dense = [m for m in tree.ours if m.density > DENSEST_FILE]
    dense.sort(key=lambda module: -module.density)
    return [f"{module.path} {module.density:.1f}" for module in dense]


def large_functions(tree: Tree) -> list[str]:
    """Functions of more than LARGEST_FUNCTION syntax nodes."""
    large = []
    for place, function in functions(tree):
        size = sum(1 for _ in ast.walk(function))
        if size > LARGEST_FUNCTION:
            large.append(f"{place} {size}")
    return large


def functions_of_many_names(tree: Tree) -> list[str]:
    """Functions with more than MOST_NAMES arguments and local names."""
    many = []
    for place, function in functions(tree):
        number = len(local_names(function))
        if number > MOST_NAMES:
            many.append(f"{place} {number}")
    return many


def local_names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """The arguments and the names that `function` assigns, without those of scopes inside it."""
    names = {node.arg for node in ast.walk(function.args) if isinstance(node, ast.arg)}
    nodes: list[ast.AST] = [*function.body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif not isinstance(node, (ast.Lambda, *COMPREHENSIONS)):
            nodes += ast.iter_child_nodes(node)
    return names


def functions(tree: Tree) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions of the product, each with its file, line and name."""
    for module in tree.ours:
        for node in module.nodes:
            if isinstance(node, FUNCTIONS):
                yield f"{module.path}:{node.lineno} {node.name}", node


def assigns_several_values(node: ast.AST) -> bool:
    """Whether `node` is a statement such as `a, b = x, y`."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets)


SYNTAX: dict[str, Callable[[ast.AST], bool]] = {
    "several values in one statement": assigns_several_values,
    "comprehensions": lambda node: isinstance(node, COMPREHENSIONS),
    "conditional expressions": lambda node: isinstance(node, ast.IfExp),
    "walrus": lambda node: isinstance(node, ast.NamedExpr),
}
"""What is counted per 1,000 code lines: it holds more than one thought."""


@dataclass(frozen=True)
class Reading:
    """How dense the code of some files is."""

    nodes: int
    code_lines: int
    per_1000: dict[str, float]
    """For each row of SYNTAX, how often it occurs in 1,000 code lines."""

    @property
    def density(self) -> float:
        """Syntax nodes a code line."""
        return self.nodes / max(1, self.code_lines)


def reading(modules: Iterable[Module]) -> Reading:
    """Count the syntax of `modules`."""
    nodes = 0
    code_lines = 0
    counts = dict.fromkeys(SYNTAX, 0)
    for module in modules:
        nodes += len(module.nodes)
        code_lines += module.code_lines
        for node in module.nodes:
            for name, is_it in SYNTAX.items():
                counts[name] += is_it(node)
    per_1000 = {name: 1000 * count / max(1, code_lines) for name, count in counts.items()}
    return Reading(nodes, code_lines, per_1000)


def table(tree: Tree) -> list[str]:
    """The findings and how many there are of each, as rows of Markdown."""
    rows = [(name, str(len(find(tree)))) for name, find in FINDINGS.items()]
    return markdown(["finding", "number"], rows, numbers=1)


def syntax_table(tree: Tree) -> list[str]:
    """How dense each package is, as rows of Markdown; rounded, so that they seldom change."""
    rows = []
    for package in (*PACKAGES, "product"):
        modules = [m for m in tree.ours if package in (m.package, "product")]
        counts = reading(modules)
        if not counts.code_lines:
            continue
        rows.append(
            (
                f"`{package}/`" if package in PACKAGES else f"**{package}**",
                str(len(modules)),
                f"{round(counts.nodes, -2):,}",
                f"{round(counts.code_lines, -2):,}",
                f"{counts.density:.1f}",
                *(f"{value:.0f}" for value in counts.per_1000.values()),
            )
        )
    titles = ["package", "files", "syntax nodes", "code lines", "nodes a code line"]
    return markdown([*titles, *SYNTAX], rows, numbers=8)


FINDINGS: dict[str, Callable[[Tree], list[str]]] = {
    "cycles between files": file_cycles,
    "cycles between folders": folder_cycles,
    "imports in launcher/ against the order of its rooms": upward_imports,
    f"files under {SHORTEST_FILE} lines with one importer": crumbs,
    f"files above {DENSEST_FILE} nodes a code line": dense_files,
    f"functions above {LARGEST_FUNCTION} nodes": large_functions,
    f"functions above {MOST_NAMES} names": functions_of_many_names,
    "broad excepts that do not raise again": broad_excepts,
}


def main() -> None:
    """Print the figures of a checkout, and the places of each finding."""
    tree = read(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1])
    print("\n".join(syntax_table(tree)))
    for package in AROUND:
        modules = [m for m in tree.modules.values() if m.package == package]
        counts = reading(modules)
        print(f"{package}: {counts.nodes:,} syntax nodes, {counts.density:.1f} a code line")
    for name, find in FINDINGS.items():
        places = find(tree)
        print(f"\n{len(places)} {name}")
        for place in places:
            print(f"  {place}")


if __name__ == "__main__":
    main()
