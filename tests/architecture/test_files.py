"""A file is short, named for what it holds, and says in one sentence what that is."""

from __future__ import annotations

import ast
import re

import pytest

from scripts.source import PACKAGES, Tree

LONGEST_FILE = 300
LONGEST_FUNCTION = 40
NAMELESS = {"util", "utils", "helper", "helpers", "misc", "stuff"}
LAUNCHER_MAY = re.compile(
    r"from (__future__|typing|collections\.abc) import|if TYPE_CHECKING:"
    r"|from launcher import own_packages$|own_packages\.pin\(\)$"
)
NAMELESS_CLASS = re.compile(r"(Manager|Helper|Handler|Utils?|Misc)$")


def long_files(tree: Tree) -> list[str]:
    """Files over the longest length; tests may be longer."""
    return [
        f"{m.path} has {m.text.count(chr(10))} lines"
        for m in tree.modules.values()
        if m.package != "tests" and m.text.count("\n") > LONGEST_FILE
    ]


def long_functions(tree: Tree) -> list[str]:
    """Functions over the longest length, their docstring not counted."""
    faults = []
    for module in tree.modules.values():
        if module.package == "tests":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1] if ast.get_docstring(node) and node.body[1:] else node.body[0]
                lines = (node.end_lineno or 0) - first.lineno + 1
                if lines > LONGEST_FUNCTION:
                    faults.append(f"{module.path}:{node.lineno} {node.name} has {lines} lines")
    return faults


def names_that_say_nothing(tree: Tree) -> list[str]:
    """Files and folders named for no subject, classes named for no thing."""
    faults = [
        str(m.path) for m in tree.modules.values() if NAMELESS & set(m.path.with_suffix("").parts)
    ]
    for module in tree.ours:
        faults += [
            f"{module.path}:{node.lineno} {node.name}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef) and NAMELESS_CLASS.search(node.name)
        ]
    return faults


def modules_without_their_sentence(tree: Tree) -> list[str]:
    """Files whose docstring is missing or is not one sentence.

    A test may be silent, for its names are claims. What is not shipped may go on after its
    sentence, to tell how it is run.
    """
    faults = []
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
            faults.append(f"{module.path}: {text!r}")
    return faults


def folders_that_do_more(tree: Tree) -> list[str]:
    """`__init__` files with more than a docstring; launcher's has its pin and its one function."""
    faults = []
    for module in tree.modules.values():
        if not module.is_init:
            continue
        code = [ast.unparse(n) for n in module.tree.body[1:] if not isinstance(n, ast.FunctionDef)]
        functions = [n for n in module.tree.body if isinstance(n, ast.FunctionDef)]
        if module.name == "launcher":
            code = [line for line in code if not LAUNCHER_MAY.match(line)]
            functions = functions[1:]
        if code or functions:
            faults.append(str(module.path))
    return faults


@pytest.mark.parametrize(
    "check",
    [
        long_files,
        long_functions,
        names_that_say_nothing,
        modules_without_their_sentence,
        folders_that_do_more,
    ],
)
def test_the_house_is_tidy(house, check):
    assert check(house) == []


def test_every_folder_with_python_in_it_is_a_package(house):
    folders = {m.path.parent for m in house.ours}
    assert [f for f in folders if not (house.root / f / "__init__.py").exists()] == []


def test_a_long_file_and_a_long_function_are_found(built):
    tree = built({"training/loop.py": "def f():\n" + "    x = 1\n" * 300})
    assert len(long_files(tree)) == len(long_functions(tree)) == 1


@pytest.mark.parametrize(
    "file",
    [
        {"training/utils.py": ""},
        {"training/helpers/__init__.py": ""},
        {"training/a.py": "class CheckpointManager: pass"},
    ],
)
def test_a_name_that_says_nothing_is_found(built, file):
    assert names_that_say_nothing(built(file))


@pytest.mark.parametrize(
    "text",
    ["", "x = 1", '"""No stop"""', '"""One sentence. And one more."""', '"""One.\n\nTwo."""'],
)
def test_a_missing_or_second_sentence_is_found(built, text):
    assert modules_without_their_sentence(built({"training/a.py": text}))


@pytest.mark.parametrize(
    "file",
    [
        {"training/__init__.py": '"""It."""\nfrom training.loop import train'},
        {"training/__init__.py": '"""It."""\nX = 1'},
        {"launcher/__init__.py": '"""It."""\ndef f(): pass\ndef g(): pass'},
        {"launcher/__init__.py": '"""It."""\nimport torch\ndef f(): pass'},
    ],
)
def test_a_folder_that_does_more_than_say_its_sentence_is_found(built, file):
    assert folders_that_do_more(built(file))
