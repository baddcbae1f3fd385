"""Commands that are printed after success, in reports and beside settings: each of them runs."""

import html
import re
import shlex
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import PROGRAM
from tests.edges.pasting import (
    DATA,
    QUICK,
    RUN,
    SLOW,
    Case,
    a_run,
    folder_of,
    parameters,
    paste,
    with_files,
)
from tests.edges.test_lines_of_settings import TASK
from tests.models.event_seg.writers import random_events, write_raw

TEXTS = {"texts": folder_of(**{f"text{n}_txt": f"A text of number {n}.\n" * 30 for n in range(12)})}
LANGUAGE = f"--model language:tiny {QUICK} --out run"
STAGED = f"--mode staged --set data.text=texts --data mine.jsonl {LANGUAGE}"
PRINTED = [
    Case(f"{LANGUAGE} --data mine.jsonl", DATA, says="use the model"),
    Case(f"--model event_seg:tiny {QUICK} --out run", TEXTS, {"FOLDER": "texts"}, says="your own data"),
    Case(f"--model event_seg:tiny {QUICK} --data a.raw --set eval.share=0.3 --out run", {"a.raw": lambda path: write_raw(path, random_events(6000, 1_200_000))}, says="use the model", marks=SLOW),
    Case(f"--model printed_task:Mine {QUICK} --out run", {"printed_task.py": TASK}, says="run again"),
    Case(f"{LANGUAGE} --data mine.jsonl --lr 1e30 --set save.every=1 --max-steps 9", DATA, then="--dry-run", says="; resume"),
    Case(f"{LANGUAGE} --data mine.jsonl --dry-run", DATA),
    Case("resume runs/mine", RUN),
    Case(STAGED, DATA | TEXTS, says="use the model", marks=SLOW),
    Case(f"{STAGED} --stage text", DATA | TEXTS, then="--dry-run"),
    Case("new-task mine"),
    Case("data check mine.jsonl", DATA),
    Case("compare --modes fast --steps 2 --dry-run", then="--dry-run"),
    Case("--set optim_lrrr=1 --dry-run"),
]  # fmt: skip


def commands(text):
    """The commands in an output, without the name of the program."""
    found = re.findall(rf"{re.escape(PROGRAM)}[^\n;]*?(?=  |;|\n|$)", text)
    return [shlex.split(command)[3:] for command in dict.fromkeys(found)]


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs a command line with a prompt on stdin; its exit code and its output."""
    monkeypatch.chdir(tmp_path)

    def typed(argv):
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
    lines = [line for line in output.splitlines() if PROGRAM in line and case.says in line]
    assert lines, output
    for argv in commands("\n".join(lines)):
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
