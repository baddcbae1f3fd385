"""The process of a command line: how it ends, and what it imports."""

import signal
from functools import partial
from pathlib import Path

import pytest

from tests.launcher.given import ROOT, python

BROKEN_OFF = """
import gearshift.launcher.__main__ as program


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

import gearshift.launcher.__main__ as program
from gearshift.launcher.config import schema


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


def test_ctrl_c_that_a_library_turns_into_its_own_error_or_in_generated_code_exits_with_130(
    tmp_path,
):
    assert run(tmp_path, SWALLOWED, "explain") == (130, "", "interrupted; nothing was written\n")
    assert run(tmp_path, BROKEN_OFF) == (130, "printed", "")


LIGHT = {
    "--help": 0,
    "explain": 0,
    "explain optim.lr --fast": 0,
    "explain --json --engine zero3-offload": 0,
    "explain --schema": 0,
    "list models": 0,
    "list engines --json": 0,
    "list modes": 0,
    "completion bash": 0,
    "new-task": 2,
    "data check nothing-there": 2,
    "--model no_such_module:Task": 2,
    "--dry-run --nproc 1": 0,
    "submit --help": 0,
    "submit --dry-run --nodes 2": 0,
    "--epohcs 3 --mode fsat --set optim.rl=1": 2,
}
"""Command lines, and their exit codes."""
CODE = """
import sys
from gearshift.launcher.__main__ import main
for line in sys.argv[1:]:
    code = main(line.split())
    heavy = {"torch", "deepspeed", "fairscale", "transformers", "wandb", "numpy", "gearshift.engines.local"} & set(sys.modules)
    print("HEAVY", sorted(heavy), code, line, file=sys.stderr)
"""


WINDOWS = """
import shutil, signal, sys
sys.platform = "win32"
del signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP
sys.modules |= dict.fromkeys(("fcntl", "pwd", "resource", "termios"))
import gearshift.launcher.__main__
"""


def test_native_windows_is_refused_in_two_lines():
    ended = python("-c", WINDOWS)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[1].startswith("  fix           wsl --install")


def test_nothing_heavy_is_loaded():
    """All in one process, which shows what the first of them loads that is too much."""
    done = python("-c", CODE, *LIGHT, folder=ROOT)
    shown = [line for line in done.stderr.splitlines() if line.startswith("HEAVY")]
    assert shown == [f"HEAVY [] {code} {line}" for line, code in LIGHT.items()]


RUN = ("--model", "abr:tiny", "--max-steps", "1", "--out", "run", "--nproc", "2")


@pytest.mark.parametrize(
    ("shell", "arguments"),
    [
        ("exec >&-", ("list", "models")),
        ("exec >&- 2>&-", ("list", "models")),
        pytest.param("exec >&-", RUN, marks=pytest.mark.slow),
    ],
)
def test_a_closed_output_ends_in_no_traceback(tmp_path, shell, arguments):
    command = ("sh", "-c", f'{shell}; exec "$@"', "sh")
    done = python("-m", "launcher", *arguments, folder=tmp_path, prefix=command)
    assert (done.returncode, done.stdout) == (0, "") and "Traceback" not in done.stderr
    assert (tmp_path / "run").exists() == (arguments == RUN)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize(
    ("stream", "argument", "code", "lines"),
    [("", "models", 1, 1), ("", "nothing", 2, 3), ("2", "nothing", 2, 0)],
)
def test_an_output_to_a_full_disk_is_an_error_of_one_line(stream, argument, code, lines):
    command = ("sh", "-c", f'exec {stream}>/dev/full; exec "$@"', "sh")
    done = python("-m", "launcher", "list", argument, prefix=command)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, lines), done.stderr


@pytest.mark.slow
def test_a_temporary_folder_on_a_full_disk_ends_a_command_in_one_sentence(tmp_path):
    code = """
import errno, os, sys, tempfile
from gearshift.launcher.base import temporary
from gearshift.launcher.__main__ import program
def full(*_, **__): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/gearshift-1")
temporary.mkdtemp = full
program()
"""
    (tmp_path / "a.txt").write_text("one two three " * 99)
    done = python("-c", code, "data", "check", "a.txt", "--model", "language", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: cannot write /tmp/gearshift-1: ")
