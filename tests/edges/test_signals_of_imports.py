"""A signal while the program imports its modules ends it as at any other time."""

import os
import re
import signal

import pytest

from tests.launcher.given import ROOT, python

SITE = """
import atexit, enum, os, signal, sys

moment, number = os.environ["MOMENT"], int(os.environ["NUMBER"])
count = 0


def at_import(event, arguments):
    global count
    if event == "import" and count + (arguments[0] in ("launcher", "gearshift")):
        count += 1
        if moment in (str(count), arguments[0]):
            signal.raise_signal(number)


sys.addaudithook(at_import)
atexit.register(lambda: print("imports:", count))
"""
"""Raises a signal at the import of this number or of this module, from the first of our code on."""
FIRST = 4
"""Before are ours, `__future__` and the module of the script; `signal`, without which nothing handles Ctrl-C, is the first
that ours imports."""
NEVER = "0"
ENDS = {signal.SIGINT: (130, -signal.SIGINT), signal.SIGTERM: (75, -signal.SIGTERM)}


@pytest.fixture
def start(tmp_path):
    """Runs a command that gets a signal at an import."""
    (tmp_path / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))

    def run(moment, number, words=("-m", "launcher")):
        variables = {"PYTHONPATH": path, "MOMENT": moment, "NUMBER": str(int(number))}
        return python(*words, "explain", "optim.lr", folder=tmp_path, env=variables)

    return run


def check(done, number, moment):
    assert done.returncode in ENDS[number], (moment, number, done)
    assert "Traceback" not in done.stderr, (moment, number, done)


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("select", signal.SIGTERM),  # within `selectors`, which psutil imports
        (
            "gearshift.launcher.config.commands",
            signal.SIGINT,
        ),  # while the parser reads the command line
        ("gearshift.launcher.plan.ladder", signal.SIGTERM),
    ],
)
def test_a_signal_within_an_import_ends_a_command(start, moment, number):
    check(start(moment, number), number, moment)


ENTRIES = {
    "launcher": ("-m", "launcher"),
    "gearshift": ("-m", "gearshift"),
    "script": ("-c", "from gearshift.__main__ import program; program()"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_ctrl_c_in_the_first_imports_prints_no_traceback(start, entry):
    for moment in (*range(FIRST, FIRST + 8), 40):
        done = start(str(moment), signal.SIGINT, ENTRIES[entry])
        check(done, signal.SIGINT, moment)
        assert "KeyboardInterrupt" not in done.stderr


@pytest.mark.slow
def test_a_signal_at_any_import_ends_a_command(start):
    complete = start(NEVER, signal.SIGINT)
    assert complete.returncode == 0
    imports = int(re.search(r"imports: (\d+)", complete.stdout)[1])
    assert imports > 100
    for moment in range(FIRST, imports + 1, 3):
        number = list(ENDS)[moment % 2]
        check(start(str(moment), number), number, moment)
