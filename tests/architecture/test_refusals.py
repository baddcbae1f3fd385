"""Forbidden code: pickle, eval, unsafe YAML, shells, broad excepts, stubs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from engines.catalog import ENGINES
from models.catalog import FAMILIES
from scripts.source import Module, Tree
from scripts.structure import broad_excepts, environment_readers

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
CALLS = {
    *("eval", "exec", "torch.save", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
}
UNSAFE_LOADERS = {"Loader", "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader"}
STUB = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")


def _calls(module: Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


def unsafe_reads(tree: Tree) -> list[str]:
    """Ways to execute the content of a file: pickle, eval, unsafe YAML."""
    found = []
    for module in tree.ours:
        found += [
            f"{module.path}:{i.line} imports {i.module}"
            for i in module.imports
            if i.module.split(".")[0] in PICKLES
        ]
        for call, name in _calls(module):
            unsafe = (
                name in CALLS
                or (name == "torch.load" and _keyword(call, "weights_only") != "True")
                or (name == "yaml.load" and not _safe_loader(call, tree))
                or _keyword(call, "allow_pickle") == "True"
                or _keyword(call, "trust_remote_code") == "True"
                or _keyword(call, "shell") == "True"
            )
            if unsafe:
                found.append(f"{module.path}:{call.lineno} calls {ast.unparse(call)}")
    return found


def _safe_loader(call: ast.Call, tree: Tree) -> bool:
    loader = _keyword(call, "Loader") or (ast.unparse(call.args[1]) if call.args[1:] else "")
    name = loader.split(".")[-1]
    if name in ("SafeLoader", "CSafeLoader"):
        return True
    bases = [
        ast.unparse(base)
        for module in tree.ours
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef) and node.name == name
        for base in node.bases
    ]
    return name not in UNSAFE_LOADERS and any(b.endswith("SafeLoader") for b in bases)


def stubs(tree: Tree) -> list[str]:
    """Unfinished work: TODO and the like."""
    return [
        f"{module.path}:{number}"
        for module in tree.ours
        for number, line in enumerate(module.text.splitlines(), start=1)
        if STUB.search(line)
    ]


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
        (unsafe_reads, "import pickle"),
        (unsafe_reads, "def f():\n    from cloudpickle import loads"),
        (unsafe_reads, "eval('1')"),
        (unsafe_reads, "torch.load(path)"),
        (unsafe_reads, "yaml.load(text, Loader=yaml.FullLoader)"),
        (unsafe_reads, "class Mine(yaml.Loader): pass\nyaml.load(text, Loader=Mine)"),
        (unsafe_reads, "numpy.load(path, allow_pickle=True)"),
        (unsafe_reads, "subprocess.run(line, shell=True)"),
        (broad_excepts, BROAD.format("", "pass")),
        (broad_excepts, BROAD.format(" (OSError, BaseException) as e", "pass")),
        (environment_readers, "os.environ['A']"),
        (environment_readers, "f(os.environ)"),
        (stubs, "x = 1  # TODO later"),
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
        (unsafe_reads, "class Ours(yaml.SafeLoader): pass\nyaml.load(text, Loader=Ours)"),
        (broad_excepts, BROAD.format(" Exception", "tidy()\n    raise")),
        (broad_excepts, BROAD.format(" Exception", "raise DataError(path) from None")),
    ],
)
def test_a_safe_pattern_is_allowed(built, check, text):
    assert check(built({"training/a.py": text})) == []
