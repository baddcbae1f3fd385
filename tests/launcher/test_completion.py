"""The completion scripts, in their shells."""

import shutil
import subprocess

import pytest

from gearshift.launcher.cli import completion
from gearshift.launcher.config.commands import COMMANDS

BASH = """
source "$1"
COMP_LINE=$2 COMP_POINT=${#2}
_gearshift
printf '%s\\n' "${COMPREPLY[@]}"
"""


LINES = [
    ("li", ["list"]),
    ("--engine zero2", ["zero2", "zero2-offload"]),
    ("--mode ul", ["ultra-fast"]),
    ("explain --ultra", ["--ultra-fast"]),
    ("explain optim.l", ["optim.layer_decay", "optim.lr"]),
    ("list e", ["engines"]),
    ("data ch", ["check"]),
    ("data fetch --con", ["--config"]),
    ("new-task --o", ["--out"]),
    ("--lite --precision bf", ["bf16"]),
    ("completion z", ["zsh"]),
    ("resume --nu", ["--num-workers"]),
    ("resume runs/x --reset o", ["optimizer"]),
    ("--epochs ", [""]),
    # Readline keeps the part before the last colon or equals sign.
    *[
        ("--model language:ti", ["tiny"]),
        ("--model=language:ti", ["tiny"]),
        ("--mode=ul", ["ultra-fast"]),
    ],
    *[("--set optim.lr", ["optim.lr="]), ("--set compile=o", ["on", "off"])],
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(tmp_path):
    script = tmp_path / "complete.bash"
    script.write_text(completion.script("bash"))
    for words, found in LINES:
        command = ["bash", "-c", BASH, "bash", script, f"gearshift {words}"]
        assert subprocess.check_output(command, text=True).splitlines() == found, words


def test_the_command_prints_the_script_with_every_option_and_command(said):
    for shell in ("bash", "zsh", "fish"):
        text = said("completion", shell)
        assert text == completion.script(shell) + "\n"
        for command in COMMANDS.values():
            assert command.name in text
            for option in command.options:
                assert option.flag.lstrip("-") in text
