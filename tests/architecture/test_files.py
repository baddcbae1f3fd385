"""Files are short, named for their content, and have a docstring of one sentence."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.source import PACKAGES, Tree
from scripts.structure import crumbs, long_functions, undocumented

LONGEST_FILE = 500
NAMELESS = {"util", "utils", "helper", "helpers", "misc", "stuff"}
LAUNCHER_MAY = re.compile(
    r"from (__future__|typing|collections\.abc) import|if TYPE_CHECKING:"
    r"|from launcher\.base import environment$|environment\.begin\(\)$"
)
NAMELESS_CLASS = re.compile(r"(Manager|Helper|Handler|Utils?|Misc)$")


def long_files(tree: Tree) -> list[str]:
    """Files over the longest length; tests may be longer."""
    return [
        f"{m.path} has {m.text.count(chr(10))} lines"
        for m in tree.modules.values()
        if m.package != "tests" and m.text.count("\n") > LONGEST_FILE
    ]


def vague_names(tree: Tree) -> list[str]:
    """Files, folders and classes with names that do not describe their content."""
    found = [str(m.path) for m in tree.modules.values() if NAMELESS & set(m.path.with_suffix("").parts)]
    for module in tree.ours:
        found += [
            f"{module.path}:{node.lineno} {node.name}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef) and NAMELESS_CLASS.search(node.name)
        ]
    return found


def missing_module_docstrings(tree: Tree) -> list[str]:
    """Files whose docstring is missing or is not one sentence.

    Tests need none. Scripts and benchmarks may add after the sentence how to run them.
    """
    found = []
    for module in tree.modules.values():
        text = ast.get_docstring(module.tree) or ""
        if module.package == "tests" and not text:
            continue
        if module.package not in PACKAGES:
            text = text.split("\n\n")[0]
        if not text.endswith((".", "?")) or "\n\n" in text or re.search(r"[a-z\])`][.!?]\s+[A-Z]", text):
            found.append(f"{module.path}: {text!r}")
    return found


def code_in_init(tree: Tree) -> list[str]:
    """`__init__` files with more than a docstring; launcher's has its import guard and its API."""
    found = []
    for module in tree.modules.values():
        if not module.is_init:
            continue
        code = [ast.unparse(n) for n in module.tree.body[1:] if not isinstance(n, ast.FunctionDef)]
        functions = [n for n in module.tree.body if isinstance(n, ast.FunctionDef)]
        if module.name == "launcher":
            code = [line for line in code if not LAUNCHER_MAY.match(line)]
            functions = [f for f in functions if f.name not in ("train", "open_run", "__getattr__")]
        if code or functions:
            found.append(str(module.path))
    return found


LONG = "def f():\n" + "    x = 1\n" * LONGEST_FILE


@pytest.mark.parametrize(
    ("check", "path", "text"),
    [
        (long_files, "training/loop.py", LONG),
        (long_functions, "training/loop.py", LONG),
        (vague_names, "training/utils.py", ""),
        (vague_names, "training/helpers/__init__.py", ""),
        (vague_names, "training/a.py", "class CheckpointManager: pass"),
        (missing_module_docstrings, "training/a.py", "x = 1"),
        (missing_module_docstrings, "training/a.py", '"""No stop"""'),
        (missing_module_docstrings, "training/a.py", '"""One sentence. And one more."""'),
        (missing_module_docstrings, "training/a.py", '"""One.\n\nTwo."""'),
        (code_in_init, "training/__init__.py", '"""It."""\nfrom training.loop import train'),
        (code_in_init, "training/__init__.py", '"""It."""\nX = 1'),
        (code_in_init, "launcher/__init__.py", '"""It."""\ndef f(): pass\ndef g(): pass'),
        (code_in_init, "launcher/__init__.py", '"""It."""\nimport torch\ndef f(): pass'),
    ],
)
def test_an_untidy_file_is_found(built, check, path, text):
    assert len(check(built({path: text}))) == 1


def test_a_short_file_with_a_single_importer_and_a_name_without_a_docstring_are_found(built):
    text = "class A:\n    'A.'\n    def f(self): pass\n    def _g(self): pass\ndef h():\n    'H.'"
    files = {"training/a.py": "", "training/b.py": "import training.a", "training/c.py": ""}
    tree = built(files | {"engines/a.py": text})
    assert crumbs(tree) == ["training/a.py"]
    assert undocumented(tree, "engines") == (["engines/a.py:3 A.f"], 3)
