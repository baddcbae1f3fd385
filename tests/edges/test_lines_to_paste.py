"""Lines to paste, wherever the program makes them, name options, settings and commands it has."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from launcher.cli.parser import read
from launcher.commands.catalog import ALIASES, COMMANDS
from launcher.config import other_tools
from launcher.config.command_line import RUN, parse
from launcher.config.options import HELP
from launcher.config.schema import setting_infos
from models.catalog import FAMILIES
from tests.launcher.given import resolved
from tests.launcher.runs import trained

ROOT = Path(__file__).parents[2]
PACKAGES = ("launcher", "models", "training", "engines")
UNKNOWN = "§"
"""Stands for a value that is known only when the line is printed."""
FLAG = re.compile(r"(?<![\w§-])--[a-z][a-z0-9-]*")
SETTING = re.compile(r"--set ['\"]?([A-Za-z_][\w.]*)=")
COMMAND = re.compile(rf"{re.escape(PROGRAM)} ([a-z][a-z-]*)")
OF_OTHERS = {
    "--shm-size": "docker run",
    "--memory": "docker run",
    "--mem": "sbatch",
    "--local-dir": "hf download",
    "--force-reinstall": "pip install",
    "--install": "xcode-select",
    "--gpus": "docker run, beside the option of plan",
    "--ipc": "docker run",
    "--ulimit": "docker run",
}
"""Options of other programs in fixes, by name."""
OF_TASKS = {
    "model.folder": "of custom tasks",
    "model.width": "of the template of a custom task",
    "KEY": "the form of --set",
}
"""Settings that no family has, and why."""


def text_of(node: ast.expr) -> str | None:
    """The text that an expression gives, with UNKNOWN for what is not written there."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value
            if isinstance(part, ast.Constant)
            else PROGRAM
            if ast.unparse(part).strip("f'\"{}") == "PROGRAM"
            else UNKNOWN
            for part in node.values
        )
    return None


@cache
def trees() -> dict[str, ast.Module]:
    """The parsed files of the packages."""
    return {
        str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def fix_values(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions that become the fix of an error."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from (keyword.value for keyword in node.keywords if keyword.arg == "fix")
        elif isinstance(node, ast.Assign):
            names = [name for target in node.targets for name in ast.walk(target)]
            if any(isinstance(name, ast.Name) and name.id == "fix" for name in names):
                yield node.value


def texts() -> Iterator[tuple[str, str]]:
    """Each text of the packages with its place: also the last lines, the advice, the faults."""
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.expr) and (text := text_of(node)) is not None:
                yield f"{path}:{node.lineno}", text


def fix_texts() -> Iterator[tuple[str, str]]:
    for path, tree in trees().items():
        for value in fix_values(tree):
            for node in ast.walk(value):
                if isinstance(node, ast.expr) and (text := text_of(node)) is not None:
                    yield f"{path}:{node.lineno}", text


@cache
def settings() -> frozenset[str]:
    return frozenset(key for family in FAMILIES for key in setting_infos(family))


@cache
def flags() -> frozenset[str]:
    options = (option.flag for command in COMMANDS.values() for option in command.options)
    return frozenset((*options, HELP.flag))


def test_the_search_sees_the_fixes_of_every_package():
    found = {place.partition("/")[0] for place, _ in fix_texts()}
    assert found == {*PACKAGES}
    assert len([value for tree in trees().values() for value in fix_values(tree)]) > 200


def test_every_option_in_a_fix_is_one_of_a_command():
    unknown = [
        (place, flag)
        for place, text in fix_texts()
        for flag in FLAG.findall(text)
        if flag not in flags() and flag not in OF_OTHERS
    ]
    assert unknown == []


def test_every_setting_to_set_exists():
    unknown = [
        (place, key)
        for place, text in texts()
        for key in SETTING.findall(text)
        if key not in settings() and key not in OF_TASKS
    ]
    assert unknown == []


def test_every_command_to_type_exists():
    unknown = [
        (place, name)
        for place, text in texts()
        for name in COMMAND.findall(text)
        if name not in COMMANDS and name not in ALIASES and name != "help"
    ]
    assert unknown == []


ENTRIES = [
    (kind, entry["words"][0], entry)
    for kind in ("commands", "options")
    for entry in other_tools.table()[kind]
]


@pytest.mark.parametrize(("kind", "word", "entry"), ENTRIES, ids=lambda value: str(value)[:20])
def test_every_line_for_other_tools_names_what_exists(kind, word, entry):
    lines = [entry["line"], entry.get("alone", ""), *entry.get("values", {}).values()]
    for line in lines:
        assert {*SETTING.findall(line)} <= settings()
        assert {*FLAG.findall(line)} <= flags()
        if kind == "commands" and line and not line.startswith("-"):
            assert line.split()[0] in COMMANDS


def test_every_setting_of_other_tools_has_one_here():
    assert {*other_tools.table()["settings"]} <= settings()


WRONG = [
    "--epohcs 3",
    "--set optim.lrr=1",
    "--mode fsat",
    "--engine zreo2",
    "--model langauge",
    "--set train.global_batch=10 --batch-size 4",
    "--model language:tiny --stage text --lite",
    "--mode staged --stage txt",
    "--ds-config ds.json --engine ddp",
    "--reset data",
    "--config mien.yaml",
    "--data mien.jsonl",
    "--precision bf61",
    "--set stages=[text]",
    "resume runs/mien",
    "resume runs/mine/checkpoints/step-00000011",
    "resume runs/mine --set schedule.warmup=4",
    "resume runs/mine --reset dta",
    "--out runs/mine",
    "explain optim.lrr",
    "predict",
    "list modles",
    "compare",
    "compare --modes fast --steps x",
    "data check mien.jsonl",
    "data chekc mine.jsonl",
    "new-task my-task",
    "watch runs/mien",
    "evaluate runs/mien",
    "export runs/mine --format hff",
    "plan --gpus 2000000",
]


@pytest.mark.parametrize("typed", WRONG)
def test_a_fix_that_is_printed_is_understood_when_it_is_pasted(
    typed, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    trained(Path("runs/mine"), resolved(), 10)
    Path("mine.jsonl").write_text('{"text": "a line"}\n')
    Path("mine.yaml").write_text("log:\n  every: 3\n")
    Path("ds.json").write_text("{}")
    dry = ["--dry-run"] if typed.startswith(("--", "resume")) else []
    assert main([*shlex.split(typed), *dry]) == 2
    printed = capsys.readouterr().err
    command = [] if typed.startswith("--") else typed.split()[:1]
    pasted = 0
    for line in re.findall(r"^  fix +(.*)$", printed, re.MULTILINE):
        first = line.partition("  ")[0]
        if first.startswith(PROGRAM):
            found = read(shlex.split(first)[3:])
        elif first.startswith("--"):
            found = parse(COMMANDS[command[0]] if command else RUN, ["x", *shlex.split(first)])
            found = replace(
                found, diagnostics=[e for e in found.diagnostics if "argument 'x'" not in e.message]
            )
        else:
            continue
        messages = [error.message for error in found.diagnostics]
        assert messages == [], line
        pasted += 1
    assert pasted or "did you mean" not in printed
