"""The words that complete a line, and the scripts that ask for them, in their shells."""

import shutil
import subprocess
import sys

import pytest

from gearshift.launcher.cli import completion
from gearshift.launcher.config.commands import COMMANDS
from gearshift.launcher.config.input_errors import names
from tests.launcher.given import ROOT

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
    ("--epochs ", []),
    ("--model language:ti", ["language:tiny"]),
    ("--model=language:ti", ["--model=language:tiny"]),
    ("--set optim.lr", ["optim.lr="]),
    ("--set compile=o", ["compile=on", "compile=off"]),
    ("--model ", names("models")),
    ("", [*COMMANDS]),
    ("--data ", []),
    ("resume runs/", []),
]


def test_the_words_that_complete_a_line():
    for line, expected in LINES:
        assert completion.words(f"gearshift {line}") == expected, line


BASH = """
gearshift() { "$PYTHON" -m gearshift "$@"; }
source <(gearshift completion bash)
for COMP_LINE in "gearshift --model=language:ti" "gearshift --engine zero2"; do
  COMP_POINT=${#COMP_LINE}
  _gearshift
  printf '%s\\n' "${COMPREPLY[@]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_gets_what_follows_the_part_that_readline_keeps():
    environment = {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT / "src")}
    command = ["bash", "-c", BASH]
    shown = subprocess.check_output(command, text=True, env=environment)
    assert shown.split() == ["tiny", "zero2", "zero2-offload"]


def test_each_shell_has_a_script(said):
    for shell in ("bash", "zsh", "fish"):
        assert "gearshift completion words" in said("completion", shell)
