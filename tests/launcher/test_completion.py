"""The completion scripts, in their shells."""

import shutil
import subprocess

import pytest

from launcher.__main__ import main
from launcher.cli import completion
from launcher.commands.catalog import COMMANDS

BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_gearshift
printf '%s\\n' "${COMPREPLY[@]}"
"""


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def script(tmp_path):
    """Writes the script of a shell to a file."""

    def write(shell):
        path = tmp_path / f"complete.{shell}"
        path.write_text(completion.script(shell))
        return path

    return write


def run_shell(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


LINES = [
    ("gearshift li", ["list"]),
    ("gearshift --engine zero2", ["zero2", "zero2-offload"]),
    ("gearshift --mode ul", ["ultra-fast"]),
    ("gearshift explain --ultra", ["--ultra-fast"]),
    ("gearshift explain optim.l", ["optim.layer_decay", "optim.lr"]),
    ("gearshift list e", ["engines"]),
    ("gearshift data ch", ["check"]),
    ("gearshift data fetch --con", ["--config"]),
    ("gearshift new-task --o", ["--out"]),
    ("gearshift --lite --precision bf", ["bf16"]),
    ("gearshift completion z", ["zsh"]),
    ("gearshift resume --nu", ["--num-workers"]),
    ("gearshift resume runs/x --reset o", ["optimizer"]),
    ("gearshift --epochs ", [""]),
]


@pytest.fixture
def bash(script):
    """The completions of a line in bash."""

    def complete(line):
        return run_shell("bash", "-c", BASH, "bash", str(script("bash")), line).splitlines()

    return complete


@needs("bash")
def test_bash_completes(bash):
    # Readline keeps the part before the last colon or equals sign.
    parts = [("--model language:ti", ["tiny"]), ("--model=language:ti", ["tiny"])]
    parts += [("--mode=ul", ["ultra-fast"]), ("--set optim.lr", ["optim.lr="])]
    parts += [("--set compile=o", ["on", "off"])]
    for line, found in (*LINES, *((f"gearshift {words}", found) for words, found in parts)):
        assert bash(line) == found, line


def test_the_command_prints_the_script_with_every_option_and_command(capsys):
    for shell in ("bash", "zsh", "fish"):
        assert main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert text == completion.script(shell) + "\n"
        for command in COMMANDS.values():
            assert command.name in text
            for option in command.options:
                assert option.flag.lstrip("-") in text
