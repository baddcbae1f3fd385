"""The process of a command line."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROKEN_OFF = """
import launcher.__main__ as program


def main():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        print("printed", end="")
        return 130


program.main = main
if __name__ == "__main__":
    program.program()
"""
SWALLOWED = """
import signal

import launcher.__main__ as program
from launcher.config import schema


def create_model(*args, **kwargs):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("as pydantic does in a validator") from None


schema.create_model = create_model
if __name__ == "__main__":
    program.program()
"""


def run(folder, code, *args):
    (folder / "mine.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mine", *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    return done.returncode, done.stdout, done.stderr


def test_ctrl_c_that_a_library_turns_into_its_own_error_exits_with_130(tmp_path):
    assert run(tmp_path, SWALLOWED, "explain") == (130, "", "interrupted; nothing was written\n")


def test_ctrl_c_in_generated_code_exits_with_130(tmp_path):
    assert run(tmp_path, BROKEN_OFF) == (130, "printed", "")
