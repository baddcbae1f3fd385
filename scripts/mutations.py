"""Mutations: small changes of the product, one at a time, that its mirrored tests should notice.

    python -m scripts.mutations [FILE or FOLDER ...] [--count N] [--seed S] [--least SHARE]

Draws changes of one node from the syntax trees, makes each in a copy of the checkout, and runs the
fast tests that mirror the file. A change that no test notices is a gap, or leaves the program as it
was: a person decides which.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("slurm", "engines", "models", "training", "launcher")
PYTEST = ("-m", "pytest", "-qx", "-n", "0", "--tb=no", "-p", "no:cacheprovider")

_OPERATORS: dict[type[ast.AST], tuple[type[ast.AST], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "ceil": "floor"}
_PRINTING = {"print", "print_line", "append_log", "warn", "warning", "info", "debug", "exception"}
_REMOVABLE = (ast.AugAssign, ast.Delete, ast.Raise, ast.Continue, ast.Break)


@dataclass(frozen=True)
class Mutation:
    """The part of a file from byte `start` to `end`, and what replaces it."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def mutated(self, source: bytes) -> bytes:
        """The content of the file with this change."""
        return source[: self.start] + self.new.encode() + source[self.end :]


def mutations(file: str, source: bytes) -> list[list[Mutation]]:
    """All changes of a file, those of a node together."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    by_node = []
    for node, variants in _changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        old = ast.unparse(node)
        changes = []
        for variant in variants:
            new = ast.unparse(variant)
            if new != old:
                text = new if isinstance(node, ast.stmt) else f"({new})"
                changes.append(Mutation(file, node.lineno, start, end, old, text))
        if changes:
            by_node.append(changes)
    return by_node


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, list[ast.AST]]]:
    """Each node below this one that computes, with the nodes that may replace it."""
    if isinstance(node, ast.If | ast.While):
        negated = ast.UnaryOp(ast.Not(), node.test)
        yield node.test, [ast.Constant(True), ast.Constant(False), negated]
    if isinstance(node, ast.comprehension):
        for condition in node.ifs:
            yield condition, [ast.Constant(True)]
    for child in _parts(node):
        if isinstance(child, ast.expr | ast.stmt):
            yield child, list(_variants(child))
        yield from _changes(child)


def _parts(node: ast.AST) -> list[ast.AST]:
    """The direct parts of a node that compute: no annotation, decorator or text for people."""
    parts: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts = [node.args, *node.body]
    elif isinstance(node, ast.arguments):
        parts = [*node.defaults, *node.kw_defaults]
    elif isinstance(node, ast.ClassDef):
        parts = node.body
    elif isinstance(node, ast.AnnAssign):
        parts = [node.value]
    elif isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        parts = []
    return [part for part in parts if part and not _is_excluded(part)]


def _is_excluded(node: ast.AST) -> bool:
    if isinstance(node, ast.FunctionDef):
        return node.name == "__repr__"
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and _name(call) in _PRINTING


def _name(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    """The node with one thing changed, in each way there is."""
    if isinstance(node, ast.Compare):
        for other in _OPERATORS[type(node.ops[0])]:
            yield _changed(node, ops=[other(), *node.ops[1:]])
    elif isinstance(node, ast.BinOp | ast.BoolOp):
        for other in _OPERATORS.get(type(node.op), ()):
            yield _changed(node, op=other())
    if isinstance(node, ast.BoolOp):
        for values in _one_less(node.values):
            yield _changed(node, values=values) if len(values) > 1 else values[0]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield from (ast.Constant(node.value + 1), ast.Constant(node.value - 1))
    elif isinstance(node, ast.Subscript):
        index = ast.unparse(node.slice)
        if index in ("0", "-1"):
            yield _changed(node, slice=ast.Constant(-1 - int(index)))
        elif isinstance(node.slice, ast.Slice):
            for bound in ("lower", "upper"):
                if getattr(node.slice, bound):
                    yield _changed(node, slice=_changed(node.slice, **{bound: None}))
    elif isinstance(node, ast.Call):
        yield from _other_calls(node)
    elif isinstance(node, _REMOVABLE) or _has_effect(node):
        yield ast.Pass()


def _other_calls(call: ast.Call) -> Iterator[ast.AST]:
    """Another function, or an argument less; a text for people stays."""
    name = _name(call)
    if isinstance(call.func, ast.Name) and name in _FUNCTIONS:
        yield _changed(call, func=ast.Name(_FUNCTIONS[name]))
    elif name == "reversed":
        yield call.args[0]
    for index, keyword in enumerate(call.keywords):
        value = keyword.value
        is_text = isinstance(value, ast.Constant) and isinstance(value.value, str)
        if not is_text and not isinstance(value, ast.JoinedStr):
            yield _changed(call, keywords=[*call.keywords[:index], *call.keywords[index + 1 :]])


def _one_less(values: list[ast.expr]) -> list[list[ast.expr]]:
    return [[*values[:index], *values[index + 1 :]] for index in range(len(values))]


def _has_effect(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return isinstance(node.targets[0], ast.Attribute | ast.Subscript)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def mirrored_tests(file: str, root: Path) -> list[str]:
    """The tests of a file; if it has none of its own, those of the nearest folder above it."""
    path = Path(file)
    folder = root / "tests" / path.parent
    mirror = folder / f"test_{path.name}"
    if mirror.exists():
        return [str(mirror.relative_to(root))]
    tests: list[Path] = []
    while not tests:
        tests = sorted(folder.glob("test_*.py"))
        folder = folder.parent
    return [str(test.relative_to(root)) for test in tests]


def first_failure(tests: list[str], root: Path, limit_s: float | None = None) -> str | None:
    """The test that fails first in the checkout `root`; None: all pass."""
    process = subprocess.Popen(
        [sys.executable, *PYTEST, *tests],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "a test hangs"
    failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", output, re.MULTILINE)
    if failed:
        return failed[1]
    return f"exit code {process.returncode}" if process.returncode else None


def _copy_checkout(root: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        if os.path.lexists(ROOT / name):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)  # links of src/ stay


def main() -> int:
    """Print a row for each mutation; exit code 1 if fewer than the share `--least` are caught."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", default=PRODUCT, metavar="FILE or FOLDER")
    parser.add_argument("--count", type=int, default=20, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--least", type=float, default=0.95, metavar="SHARE")
    options = parser.parse_args()
    by_node = []
    for path in options.paths:
        files = sorted(Path(ROOT, path).rglob("*.py")) or [Path(ROOT, path)]
        for file in files:
            by_node += mutations(str(file.relative_to(ROOT)), file.read_bytes())
    draw = random.Random(options.seed)
    drawn = [draw.choice(changes) for changes in draw.sample(by_node, options.count)]

    caught = 0
    limits_s: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _copy_checkout(root)
        for mutation in drawn:
            tests = mirrored_tests(mutation.file, root)
            if tuple(tests) not in limits_s:
                started_at = time.monotonic()
                failure = first_failure(tests, root)
                if failure:
                    sys.exit(f"{failure} fails without a change")
                limits_s[tuple(tests)] = 30 + 3 * (time.monotonic() - started_at)
            file = root / mutation.file
            source = file.read_bytes()
            file.write_bytes(mutation.mutated(source))
            failure = first_failure(tests, root, limits_s[tuple(tests)])
            file.write_bytes(source)
            caught += failure is not None
            print(f"{mutation.file}:{mutation.line}  {mutation.old}  =>  {mutation.new}")
            print(f"    caught by {failure}" if failure else "    MISSED", flush=True)
    print(f"{caught} of {len(drawn)} caught")
    return int(caught < options.least * len(drawn))


if __name__ == "__main__":
    sys.exit(main())
