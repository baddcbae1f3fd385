"""The Python files of a tree, parsed, with their imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurm", "engines", "models", "training", "launcher", "ds_configs")
AROUND = ("benchmarks", "scripts", "tests")


@dataclass(frozen=True)
class Import:
    """One imported name: `module`, and `name` for `from module import name`."""

    module: str
    name: str | None
    line: int
    eager: bool
    """It runs when the importing module is loaded."""

    @property
    def dotted(self) -> str:
        """Module and name as one dotted path."""
        return f"{self.module}.{self.name}" if self.name else self.module


def _runs_later(node: ast.AST) -> bool:
    """Whether code below `node` does not run when the module is loaded."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


@dataclass(frozen=True)
class Module:
    """One Python file of the tree, by its dotted name."""

    name: str
    path: Path
    """Relative to the root of the tree."""
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The folder at the root of the tree that contains it."""
        return self.name.split(".")[0]

    @property
    def is_init(self) -> bool:
        """It is a folder's `__init__.py`."""
        return self.path.name == "__init__.py"

    @functools.cached_property
    def imports(self) -> tuple[Import, ...]:
        """Everything it imports, at any depth; imports for type checking count as not eager."""
        return tuple(self._imports_below(self.tree, eager=True))

    def _imports_below(self, node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, None, child.lineno, eager)
            elif isinstance(child, ast.ImportFrom):
                base = self._base(child)
                for alias in child.names:
                    yield Import(base, alias.name, child.lineno, eager)
            else:
                yield from self._imports_below(child, eager and not _runs_later(child))

    def _base(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        parts = parts[: len(parts) - node.level + (1 if self.is_init else 0)]
        return ".".join([*parts, node.module] if node.module else parts)


@dataclass(frozen=True)
class Tree:
    """All modules of a checkout, by dotted name."""

    root: Path
    modules: dict[str, Module]

    @property
    def ours(self) -> list[Module]:
        """The modules of the shipped packages."""
        return [m for m in self.modules.values() if m.package in PACKAGES]

    def target(self, imported: Import) -> str | None:
        """The module of this tree that `imported` names; None: a third-party package."""
        if imported.dotted in self.modules:
            return imported.dotted
        return imported.module if imported.module in self.modules else None


def read(root: Path) -> Tree:
    """Parse every Python file below the known folders of `root`."""
    modules = {}
    for folder in (*PACKAGES, *AROUND):
        for path in sorted((root / folder).rglob("*.py")):
            relative = path.relative_to(root)
            parts = relative.with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            modules[name] = Module(name, relative, text, ast.parse(text, str(relative)))
    return Tree(root, modules)
