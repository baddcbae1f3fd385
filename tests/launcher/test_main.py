"""The process of a command line."""

import signal
from functools import partial

from tests.launcher.given import python

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
    interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    done = python("-m", "mine", *args, folder=folder, preexec_fn=interruptible)
    return done.returncode, done.stdout, done.stderr


def test_ctrl_c_that_a_library_turns_into_its_own_error_exits_with_130(tmp_path):
    assert run(tmp_path, SWALLOWED, "explain") == (130, "", "interrupted; nothing was written\n")


def test_ctrl_c_in_generated_code_exits_with_130(tmp_path):
    assert run(tmp_path, BROKEN_OFF) == (130, "printed", "")
