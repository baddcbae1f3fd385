"""The command line of a program that has one more engine or family in each of its processes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def command(folder, line):
    """Makes what runs a command line in `folder`, with the Python text `line` at each start of Python."""
    (folder / "sitecustomize.py").write_text(line)
    path = os.pathsep.join((str(folder), str(ROOT)))

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "launcher", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
