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
    found = [
        str(m.path) for m in tree.modules.values() if NAMELESS & set(m.path.with_suffix("").parts)
    ]
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
        if (
            not text.endswith((".", "?"))
            or "\n\n" in text
            or re.search(r"[a-z\])`][.!?]\s+[A-Z]", text)
        ):
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


@pytest.mark.parametrize(
    "check",
    [
        long_files,
        long_functions,
        vague_names,
        missing_module_docstrings,
        code_in_init,
    ],
)
def test_the_checkout_is_tidy(checkout, check):
    assert check(checkout) == []


def test_every_folder_with_python_files_is_a_package(checkout):
    folders = {m.path.parent for m in checkout.ours}
    assert [f for f in folders if not (checkout.root / f / "__init__.py").exists()] == []


def test_a_long_file_and_a_long_function_are_found(built):
    tree = built({"training/loop.py": "def f():\n" + "    x = 1\n" * LONGEST_FILE})
    assert len(long_files(tree)) == len(long_functions(tree)) == 1


@pytest.mark.parametrize(
    "file",
    [
        {"training/utils.py": ""},
        {"training/helpers/__init__.py": ""},
        {"training/a.py": "class CheckpointManager: pass"},
    ],
)
def test_a_vague_name_is_found(built, file):
    assert vague_names(built(file))


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", '"""No stop"""', '"""One sentence. And one more."""', '"""One.\n\nTwo."""'],
)
def test_a_missing_or_longer_docstring_is_found(built, text):
    assert missing_module_docstrings(built({"training/a.py": text}))


@pytest.mark.parametrize(
    "file",
    [
        {"training/__init__.py": '"""It."""\nfrom training.loop import train'},
        {"training/__init__.py": '"""It."""\nX = 1'},
        {"launcher/__init__.py": '"""It."""\ndef f(): pass\ndef g(): pass'},
        {"launcher/__init__.py": '"""It."""\nimport torch\ndef f(): pass'},
    ],
)
def test_code_in_an_init_file_is_found(built, file):
    assert code_in_init(built(file))


def test_few_short_files_have_a_single_importer(checkout):
    assert len(crumbs(checkout)) <= 20


def test_a_short_file_with_a_single_importer_is_found(built):
    tree = built({"training/a.py": "", "training/b.py": "import training.a", "training/c.py": ""})
    assert crumbs(tree) == ["training/a.py"]


def test_engines_document_their_public_names(checkout):
    missing, count = undocumented(checkout, "engines")
    assert len(missing) <= count / 10, missing


def test_an_undocumented_public_name_is_found(built):
    text = "class A:\n    'A.'\n    def f(self): pass\n    def _g(self): pass\ndef h():\n    'H.'"
    assert undocumented(built({"engines/a.py": text}), "engines") == (["engines/a.py:3 A.f"], 3)
