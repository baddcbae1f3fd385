"""Forbidden code that ruff does not find: trusted files, broad excepts, names of engines."""

from __future__ import annotations

import ast
import re

import pytest

from engines.catalog import ENGINES
from models.catalog import FAMILIES
from scripts.source import Tree
from scripts.structure import broad_excepts, environment_readers


def trusted_files(tree: Tree) -> list[str]:
    """Calls by which a library runs the code of a file."""
    trust = re.compile(r"\b(allow_pickle|trust_remote_code)['\"]?\s*[:=]\s*True")
    return [str(module.path) for module in tree.ours if trust.search(module.text)]


def known_engines(tree: Tree) -> list[str]:
    """Texts outside engines/ that are the name of an engine, or advise one; families in training.

    In models, `local` is also a part of a model.
    """
    names = {"launcher": {*ENGINES}, "training": {*ENGINES, *FAMILIES}, "models": set[str]()}
    advice = re.compile(rf"\buse ({'|'.join(ENGINES)})\b")
    return [
        f"{module.path}:{node.lineno} {node.value}"
        for module in tree.ours
        if module.package in names
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value in names[module.package] or advice.search(node.value)
    ]


BROAD = "try:\n    pass\nexcept{}:\n    {}"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (trusted_files, "numpy.load(path, allow_pickle=True)"),
        (broad_excepts, BROAD.format("", "pass")),
        (broad_excepts, BROAD.format(" (OSError, BaseException) as e", "pass")),
        (environment_readers, "os.environ['A']"),
        (environment_readers, "f(os.environ)"),
        (known_engines, "if engine == 'ddp':\n    pass"),
        (known_engines, "build_engine('local', world, options)"),
        (known_engines, "raise ValueError('use local or ddp')"),
        (known_engines, "if name in ('zero1', 'x'):\n    pass"),
    ],
)
def test_a_forbidden_pattern_is_found(built, check, text):
    assert len(check(built({"training/a.py": text}))) == 1


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (broad_excepts, BROAD.format(" Exception", "tidy()\n    raise")),
        (broad_excepts, BROAD.format(" Exception", "raise DataError(path) from None")),
    ],
)
def test_a_safe_pattern_is_allowed(built, check, text):
    assert check(built({"training/a.py": text})) == []
