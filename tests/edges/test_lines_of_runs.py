"""Commands that are printed after success, in reports and beside settings: each of them runs."""

from __future__ import annotations

import ast
import html
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from tests.edges.pasting import (
    QUICK,
    ROOT,
    UNKNOWN,
    Case,
    a_run,
    fixes,
    folder_of,
    parameters,
    paste,
    text_of,
    trees,
    with_files,
)
from tests.edges.test_lines_of_settings import TASK
from tests.launcher.config.original_words import FILES
from tests.runs.conftest import REQUESTS

SLOW = (pytest.mark.slow,)
DATA = {"mine.jsonl": REQUESTS}
RUN = {"runs/mine": a_run}
TEXTS = {"texts": folder_of(**{f"text{n}_txt": f"A text of number {n}.\n" * 30 for n in range(12)})}
LANGUAGE = f"--model language:tiny {QUICK} --out run"
STAGED = f"--mode staged --set data.text=texts --data mine.jsonl {LANGUAGE}"
REPORT = "launcher/report/facts.py:commands"
PRINTED = [
    Case("launcher/run/execute.py:next_command", f"{LANGUAGE} --data mine.jsonl", DATA, says="use the model"),
    Case("launcher/run/execute.py:next_command", f"--model event_seg:tiny {QUICK} --out run", TEXTS, {"FOLDER": "texts"}, says="your own data"),
    Case("launcher/run/execute.py:render_last_line", f"--model printed_task:Mine {QUICK} --out run", {"printed_task.py": TASK}, says="run again"),
    Case("launcher/run/execute.py:render_last_line", f"{LANGUAGE} --data mine.jsonl --lr 1e30 --set save.every=1 --max-steps 9", DATA, then="--dry-run", says="; resume"),
    Case("launcher/run/dry_run.py:render_plan", f"{LANGUAGE} --data mine.jsonl --dry-run", DATA),
    Case("launcher/run_folder/resume_decision.py:_nothing_left", "resume runs/mine", RUN),
    Case("launcher/stages/summary.py:_last_line", STAGED, DATA | TEXTS, says="use the model", marks=SLOW),
    Case("launcher/stages/summary.py:next_stage", f"{STAGED} --stage text", DATA | TEXTS, then="--dry-run"),
    Case("launcher/commands/convert.py:main", "convert abr.yaml", {"abr.yaml": FILES["abr"], "data.csv": ""}),
    Case("launcher/commands/new_task.py:main", "new-task mine"),
    Case("launcher/commands/data.py:_command", "data check mine.jsonl", DATA),
    Case("launcher/commands/compare.py:_plan", "compare --modes fast --steps 2 --dry-run", then="--dry-run"),
    Case("launcher/base/diagnostics.py:listed", "--set optim_lrrr=1 --dry-run"),
]  # fmt: skip
COVERED = {
    **dict.fromkeys(
        (
            "launcher/cli/first_guesses.py:_of_run",
            "launcher/cli/first_guesses.py:_of_options",
            "launcher/cli/first_guesses.py:_Guess.fix",
            "launcher/config/other_tools.py:script_line",
        ),
        "edges/test_first_guesses.py",
    ),
    **dict.fromkeys(
        (
            "launcher/cli/parser.py:_epilog",
            "launcher/cli/parser.py:_usage",
            "launcher/cli/parser.py:build",
        ),
        "launcher/cli/test_parser.py",
    ),
    **dict.fromkeys(
        ("launcher/run/faults.py:commands", "launcher/run/faults.py:_despite_nonfinite"),
        "launcher/run/test_fixes.py",
    ),
    "launcher/report/facts.py:commands": "edges/test_lines_of_runs.py",
    "launcher/report/facts.py:promise_command": "launcher/report/test_report.py",
    "launcher/run_folder/resume_decision.py:_again": "edges/test_lines_of_commands.py",
    "launcher/run_folder/checkpoint_search.py:_line": "edges/test_lines_of_commands.py",
    "launcher/config/command.py:Command.call": "edges/test_lines_of_commands.py",
    "launcher/config/argument_errors.py:missing_operand": "edges/test_lines_of_commands.py",
    "launcher/config/argument_errors.py:missing_argument": "edges/test_first_guesses.py",
    "launcher/config/python_arguments.py:": "edges/test_python_api.py",
    "launcher/commands/plan.py:_run_command": "launcher/test_plan.py",
    "launcher/commands/convert.py:main": "launcher/test_convert.py",
    "launcher/commands/doctor.py:_print_engines": "launcher/test_doctor.py",
    "launcher/commands/submit.py:_submitted": "launcher/submit/test_submit.py",
    "launcher/commands/track.py:_start_message": "training/trackers/test_wandb_offline.py",
    "launcher/run/prepare.py:check_memory": "launcher/run/test_memory_check.py",
    "launcher/run/callbacks.py:RankCallbacks._trackers": "training/trackers/test_wandb_offline.py",
    "launcher/stages/pipeline.py:_nothing_left": "edges/test_lines_of_runs.py",
    "launcher/stages/summary.py:_last_line": "runs/test_staged.py",
    "launcher/run/execute.py:render_last_line": "launcher/run/test_prepare.py",
}
"""Places that only form a line which others print, or whose line is tested there."""


def places() -> Iterator[tuple[str, str]]:
    """Each text with a command that is not the fix of an error, and its place: file:function."""
    of_fixes = set(fixes())
    for path, tree in trees().items():
        left: list[tuple[str, ast.AST]] = [("", tree)]
        while left:
            name, node = left.pop()
            for child in ast.iter_child_nodes(node):
                is_scope = isinstance(child, ast.FunctionDef | ast.ClassDef)
                inside = f"{name}.{child.name}".lstrip(".") if is_scope else name
                text = text_of(child) if isinstance(child, ast.JoinedStr) else None
                if isinstance(child, ast.Attribute) and ast.unparse(child) == "PROGRAM.split":
                    text = f"{PROGRAM} {UNKNOWN}"
                if (
                    text is not None
                    and PROGRAM in text
                    and (f"{path}:{inside}", text) not in of_fixes
                ):
                    yield f"{path}:{inside}", text
                left.append((inside, child))


def commands(text: str) -> list[list[str]]:
    """The commands in an output, without the name of the program."""
    found = re.findall(rf"{re.escape(PROGRAM)}[^\n;]*?(?=  |;|\n|$)", text)
    return [shlex.split(command)[3:] for command in dict.fromkeys(found)]


def test_each_printed_command_has_a_case():
    cases = {case.place for case in PRINTED}
    found = {place for place, _ in places()}
    assert found - cases - {*COVERED} == set(), "printed commands without a case"
    assert {*cases, *COVERED} - found == set(), "cases of no place"
    assert [path for path in COVERED.values() if not (ROOT / "tests" / path).is_file()] == []


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> Callable[..., tuple[int, str]]:
    """Runs a command line with a prompt on stdin; its exit code and its output."""
    monkeypatch.chdir(tmp_path)

    def typed(argv: list[str]) -> tuple[int, str]:
        from io import StringIO

        monkeypatch.setattr("sys.stdin", StringIO("what is 3"))
        capfd.readouterr()
        code = main(argv)
        return code, "".join(capfd.readouterr())

    return typed


@pytest.mark.parametrize("case", parameters(PRINTED))
def test_a_printed_command_runs(case, run):
    with_files(case.files, Path())
    _, output = run(shlex.split(case.typed))
    texts = [text for place, text in places() if place == case.place and case.says in text]
    pattern = "|".join(re.escape(text).replace(UNKNOWN, ".+") for text in texts)
    matched = re.findall(pattern, output)
    assert matched, output
    for argv in commands("\n".join(matched)):
        line = shlex.join([*PROGRAM.split(), *argv])
        for placeholder, value in case.given.items():
            line = re.sub(rf"\b{placeholder}\b", value, line)
        code, printed = run([*paste(line, [], ""), *shlex.split(case.then)])
        assert code == 0, f"{line}\n{printed}"


def test_the_commands_of_a_report_run(run):
    a_run(Path("runs/mine"))
    assert run(["report", "runs/mine"])[0] == 0
    text = html.unescape(Path("runs/mine/report.html").read_text())
    found = commands(re.sub(r"</?\w[^>]*>", "\n", text))
    assert {argv[0] for argv in found} >= {"--config", "resume", "verify", "report"}
    for argv in found:
        quick = ["--dry-run"] if argv[0] == "--config" else []
        code, printed = run([*argv, *quick]) if argv[0] != "verify" else run(["verify", "--help"])
        assert code == 0, f"{argv}\n{printed}"


@pytest.mark.slow
def test_the_command_of_completed_stages_trains_one_longer(run):
    with_files(DATA | TEXTS, Path())
    assert run(shlex.split(STAGED))[0] == 0
    _, output = run(["resume", "run"])
    [argv] = [argv for argv in commands(output) if "N" in argv]
    longer = ["1" if word == "N" else word for word in argv]
    code, printed = run([*longer, "--dry-run"])
    assert code == 0, printed
