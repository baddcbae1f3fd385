"""What a plain run loads of this program: it pays for what it uses only."""

import ast
import json
from pathlib import Path

import pytest

from tests.launcher.given import python

UNUSED = (
    "launcher.stages",
    "launcher.continual",
    "launcher.compare",
    "launcher.plan",
    "launcher.download",
    "launcher.doctor",
    "launcher.submit",
    "launcher.saved_runs",
    "launcher.config.input_errors",
    "launcher.config.custom_task",
    "launcher.run.supervisor",
    "launcher.run.experience",
    "launcher.run.job_generation",
    "launcher.run.dry_run",
    "engines.zero",
    "slurm.address",
    "slurm.variables",
    "engines.deferred_init",
    "models.common.cache",
    "models.common.data_files",
    "launcher.run.run_error",
    "launcher.config.fitted_batch",
    "launcher.config.scaled_change",
    "training.evaluation.evaluate_split",
    "training.evaluation.goals",
)
"""Packages and files of features."""
MOST_MODULES = 125
LARGEST_SHARE = 0.2
"""Of the lines of functions, those that the run never calls."""
PROGRAM = """
import json, sys, threading
called = set()
def note(frame, event, argument):
    if event == "call":
        called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))
threading.setprofile(note)
sys.setprofile(note)
from gearshift.launcher.__main__ import program
sys.argv[1:] = ["--max-steps", "3", "--engine", "local", "--set", "device=cpu", "--out", "run"]
try:
    program()
except SystemExit as end:
    assert end.code == 0
sys.setprofile(None)
files = {n: getattr(m, "__file__", None) for n, m in sys.modules.items() if n.startswith("gearshift")}
print(json.dumps({"files": files, "called": sorted(called)}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The files that a plain run loads, by module, and its calls: the file and first line of each."""
    done = python("-c", PROGRAM, folder=tmp_path_factory.mktemp("plain"))
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout.splitlines()[-1])
    return run["files"], {(str(Path(file).resolve()), line) for file, line in run["called"]}


def test_a_plain_run_loads_no_module_of_a_feature_that_it_does_not_use(run):
    files, _ = run
    assert [name for name in UNUSED if f"gearshift.{name}" in files] == []
    assert len({file for file in files.values() if file}) <= MOST_MODULES


def test_a_plain_run_calls_most_functions_that_it_loads(run):
    files, called = run
    lines = 0
    never = {}
    for name, file in files.items():
        if not file:
            continue
        path = str(Path(file).resolve())
        for function in functions(ast.parse(Path(path).read_text(encoding="utf-8"))):
            length = function.end_lineno - function.lineno + 1
            lines += length
            first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
            if (path, first) not in called:
                never[name] = never.get(name, 0) + length
    share = sum(never.values()) / lines
    assert share <= LARGEST_SHARE, sorted(never.items(), key=lambda row: -row[1])[:20]


def functions(tree):
    """The functions and methods of a file, without those inside functions, and without stubs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if not is_stub(node):
                yield node
        else:
            yield from functions(node)


def is_stub(function):
    """Whether a function has no more than its docstring, as in a contract."""
    return len(function.body) == 1 and isinstance(function.body[0], ast.Expr)
