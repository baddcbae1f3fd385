"""The completion scripts, in their shells."""

import shutil
import subprocess

import pytest

from launcher.cli import completion
from launcher.commands.catalog import COMMANDS

BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_gearshift
printf '%s\\n' "${COMPREPLY[@]}"
"""


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


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(tmp_path):
    script = tmp_path / "complete.bash"
    script.write_text(completion.script("bash"))
    # Readline keeps the part before the last colon or equals sign.
    parts = [("--model language:ti", ["tiny"]), ("--model=language:ti", ["tiny"])]
    parts += [("--mode=ul", ["ultra-fast"]), ("--set optim.lr", ["optim.lr="])]
    parts += [("--set compile=o", ["on", "off"])]
    for line, found in (*LINES, *((f"gearshift {words}", found) for words, found in parts)):
        command = ["bash", "-c", BASH, "bash", script, line]
        assert subprocess.check_output(command, text=True).splitlines() == found, line


def test_the_command_prints_the_script_with_every_option_and_command(said):
    for shell in ("bash", "zsh", "fish"):
        text = said("completion", shell)
        assert text == completion.script(shell) + "\n"
        for command in COMMANDS.values():
            assert command.name in text
            for option in command.options:
                assert option.flag.lstrip("-") in text
