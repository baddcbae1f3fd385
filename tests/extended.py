"""The command line of a program that has one more engine or family in each of its processes."""

import os

from tests.launcher.given import ROOT, SOURCE, python


def command(folder, line):
    """Makes what runs a command line in `folder`, with the Python text `line` at each start of Python."""
    (folder / "sitecustomize.py").write_text(line)
    path = os.pathsep.join(
        (str(folder), str(SOURCE), str(ROOT))
    )  # `line` may name modules of tests

    def run(*words):
        done = python("-m", "launcher", *words, folder=folder, env={"PYTHONPATH": path})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
