"""Lines to paste, wherever the program makes them, name options, settings and commands it has."""

import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from launcher.commands.catalog import ALIASES, COMMANDS
from launcher.config.options import HELP
from launcher.config.schema import setting_infos
from models.catalog import FAMILIES
from tests.edges.pasting import QUICK, a_run, alternatives, folder_of, texts
from tests.runs.conftest import REQUESTS

FLAG = re.compile(r"(?<![\w§-])--[a-z][a-z0-9-]*")
SETTING = re.compile(r"--set ['\"]?([A-Za-z_][\w.]*)=")
COMMAND = re.compile(rf"{re.escape(PROGRAM)} ([a-z][a-z-]*)")
OF_TASKS = {"model.folder", "model.width", "KEY"}
"""Settings that no family has: of custom tasks, of their template, and the form of --set."""


@cache
def settings():
    return frozenset(key for family in FAMILIES for key in setting_infos(family))


@cache
def flags():
    options = (option.flag for command in COMMANDS.values() for option in command.options)
    return frozenset((*options, HELP.flag))


def test_every_option_setting_and_command_of_a_line_to_type_exists():
    commands = {*COMMANDS, *ALIASES, "help"}
    for place, text in texts():
        assert {*SETTING.findall(text)} <= {*settings(), *OF_TASKS}, (place, text)
        assert {*COMMAND.findall(text)} <= commands, (place, text)
        for line in (line for lines in alternatives(text) for line in lines):
            if line.startswith(PROGRAM):
                assert {*FLAG.findall(line)} <= flags(), (place, line)


PLAIN = f"--model language:tiny --data mine.jsonl {QUICK}"
STAGED = "--mode staged --model language:tiny --dry-run"
UNPROVOKED = [
    f"{PLAIN} --out new",
    "--continuous-learning --data texts --nproc 1 --dry-run",
    f"{PLAIN} --dry-run",
    "resume runs/mine --set model.pretrained=null --dry-run",
    "data check mine.jsonl --model language",
    f"{PLAIN} --set save.every=null --dry-run",
    f"{PLAIN} --set download.folder=new --dry-run",
    "data fetch --config mine.yaml",
    "predict runs/mine --input mine.jsonl --max-tokens 1",
    "predict runs/mine --input hello",
    "resume runs/mine",
    "export runs/mine --format safetensors",
    "resume runs/mine --set save.every=1 --dry-run",
    "report runs/mine",
    f"{STAGED} --stage text",
    "resume runs/mine --reset data --dry-run",
    "--model doc_translation --set 'model.partial=[global]' --dry-run",
    "--model doc_translation --set data.font=mine.jsonl --dry-run",
    "--model eeg_text --set data.split=sentence --dry-run",
    "--data embedded:commands --dry-run",
    f"{PLAIN} --set data.seq_len=64",
    f"{PLAIN} --resource-efficient --dry-run",
]  # fmt: skip
"""The line of what cannot be provoked in a test of seconds, such as a full disk, as one types it."""


@pytest.mark.parametrize("line", UNPROVOKED)
def test_a_line_that_cannot_be_provoked_here_starts(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("hello"))
    a_run(Path("runs/mine"))
    folder_of(a_jsonl=REQUESTS)(Path("texts"))
    Path("mine.jsonl").write_text(REQUESTS)
    source = Path("mine.jsonl").absolute().as_uri()
    Path("mine.yaml").write_text(f"download:\n  files: [{source}]\n")
    assert main(shlex.split(line)) == 0


SHELL_WORDS = re.compile(r"[\[\]<>*?]")


def test_the_lines_are_quoted_for_every_shell():
    """Brackets in quotes: zsh looks for files of that name."""
    wrong = []
    for path, text in texts():
        for line in (line for lines in alternatives(text) for line in lines):
            plain = re.sub(r"'[^']*(?:'|$)|\"[^\"]*\"", "", line)
            if line.startswith("--set ") and "\\" not in line and SHELL_WORDS.search(plain):
                wrong.append((path, line))
    assert wrong == []
