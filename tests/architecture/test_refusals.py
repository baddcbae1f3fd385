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
MOST_BROAD_EXCEPTS = 5
MOST_ENVIRONMENT_READERS = 5
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
    """Comparisons with the name of an engine or a family, in the loop and its callbacks."""
    names = {*ENGINES, *FAMILIES}
    return [
        f"{module.path}:{node.lineno} {ast.unparse(node)}"
        for module in tree.ours
        if module.package == "training"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for side in ast.walk(node)
        if isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value in names
    ]


@pytest.mark.parametrize("check", [unsafe_reads, stubs, known_engines])
def test_the_checkout_has_no_forbidden_pattern(checkout, check):
    assert check(checkout) == []


def test_few_files_catch_everything_or_read_the_environment(checkout):
    assert len(broad_excepts(checkout)) <= MOST_BROAD_EXCEPTS, broad_excepts(checkout)
    readers = environment_readers(checkout)
    assert len(readers) <= MOST_ENVIRONMENT_READERS, readers


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "def f():\n    from cloudpickle import loads",
        "eval('1')",
        "torch.load(path)",
        "torch.save(x, path)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.load(text, Ours)",
        "class Mine(yaml.Loader): pass\nyaml.load(text, Loader=Mine)",
        "numpy.load(path, allow_pickle=True)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_unsafe_deserialization_is_found(built, line):
    assert len(unsafe_reads(built({"launcher/a.py": line}))) == 1


def test_a_safe_loader_of_ours_is_allowed(built):
    text = "class Ours(yaml.SafeLoader): pass\nyaml.load(text, Loader=Ours)"
    assert unsafe_reads(built({"launcher/a.py": text})) == []


@pytest.mark.parametrize("kind", ["", " Exception", " (OSError, BaseException) as e"])
def test_a_broad_except_is_found(built, kind):
    text = f"try:\n    pass\nexcept{kind}:\n    pass"
    assert broad_excepts(built({"launcher/a.py": text})) == ["launcher/a.py:3"]


@pytest.mark.parametrize("end", ["raise", "raise DataError(path) from None"])
def test_a_broad_except_that_raises_again_is_allowed(built, end):
    text = f"try:\n    pass\nexcept Exception:\n    tidy()\n    {end}"
    assert broad_excepts(built({"launcher/a.py": text})) == []


@pytest.mark.parametrize("line", ["os.environ['A']", "os.getenv('A')", "f(os.environ)"])
def test_a_reader_of_the_environment_is_found(built, line):
    assert environment_readers(built({"training/a.py": line})) == ["training/a.py"]


@pytest.mark.parametrize("line", ["x = 1  # TODO later", "raise NotImplementedError"])
def test_unfinished_work_is_found(built, line):
    assert stubs(built({"training/a.py": line})) == ["training/a.py:1"]


@pytest.mark.parametrize("test", ["engine == 'ddp'", "name in ('zero1', 'x')"])
def test_a_known_engine_in_the_loop_is_found(built, test):
    assert len(known_engines(built({"training/a.py": f"if {test}:\n    pass"}))) == 1
