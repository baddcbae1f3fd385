"""Wrong command lines: the key and the place of the error, and a fix after which the command starts."""

import ast
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import PROGRAM
from gearshift.launcher.config import machine
from gearshift.launcher.config.command_line import HELP
from gearshift.launcher.config.commands import ALIASES, COMMANDS
from gearshift.launcher.config.schema import setting_infos
from gearshift.models.catalog import FAMILIES
from tests.launcher.custom_tasks import BODY, HEAD, LINE
from tests.launcher.given import LAPTOP, resolved
from tests.launcher.runs import trained
from tests.runs.conftest import REQUESTS

TASK = HEAD + LINE + BODY
DATA = {"mine.jsonl": REQUESTS}
TEXTS = {"texts/a.jsonl": REQUESTS}
STAGED = "--mode staged --set stages"
RUNS_OF = [name for name, command in COMMANDS.items() if "RUN" in command.argument]
CASES = [
    ("--nproc 100000", {}, "engine.nproc", "--nproc 100000"),
    ("--set train.global_batch=10 --batch-size 4 --set train.accumulation=2", {}, "train.global_batch", "--set train.global_batch=10"),
    ("--set train.global_batch=7 --nproc 2", {}, "train.global_batch", "--set train.global_batch=7"),
    ("new-task", {}, None, "command line: new-task"),
    ("--config mine.yaml", {"mine.yaml": "optim:\n  lrr: 1e-3\n"}, "optim.lrr", "mine.yaml:2 optim.lrr"),
    ("--config mine.yaml", {"mine.yaml": "precision: bf61\n"}, "precision", "mine.yaml:1 precision"),
    ("--model near_task:Lien", {"near_task.py": TASK}, "model.family", "--model near_task:Lien; near_task.py"),
    ("--continuous-learning --data mine.jsonl", DATA, "data.path", "--data mine.jsonl"),
    ("--continuous-learning --data texts --set save.last=false", TEXTS, "save.last", "--set save.last=false"),
    ("--continuous-learning --data texts --out texts/run", TEXTS, "data.path", "--data texts"),
    ("--model abr --set stages=[encoder]", {}, "stages", "--set stages=[encoder]"),
    ("--model whole_task:Line --mode staged", {"whole_task.py": TASK}, "mode", "--mode staged"),
    (f"{STAGED}=[upper,lower]", {}, "stages", "--set stages=[upper,lower]"),
    ("--ds-config ds.json --engine ddp", {"ds.json": "{}"}, "engine.ds_config", "--ds-config ds.json"),
    ("--data mien.jsonl", DATA, "data.path", "--data mien.jsonl"),
    ("--set train.max_steps=null --set train.epochs=null", {}, "train.epochs", "--set train.epochs=null"),
    ("explain optim.lrr", {}, "optim.lrr", "command line: explain optim.lrr"),
    ("compare --modes fast --steps x", {}, "--steps", "command line: --steps x"),
    ("--lite optim.lr=1e-3", {}, None, "command line: optim.lr=1e-3"),
    ("--model tiny", {}, "model.family", "--model tiny"),
    ("submit --dry-run --exclusive", {}, None, "command line: --exclusive"),
    ("data check mien.jsonl", DATA, None, "command line: data check mien.jsonl"),
    ("new-task my-task.py", {}, None, "command line: new-task my-task.py"),
    ("plan --gpu H100", {}, "--gpu", "command line: --gpu H100"),
    ("export runs/mine --format safetensor", {}, "--format", "command line: --format safetensor"),
    ("plan --model language:tiny --ram 8", {}, "--ram", "command line: --ram 8"),
    *((f"plan {flag}", {}, None, f"command line: {flag}") for flag in ("--track", "--profile", "--max-restarts")),
    ("plan --continuous-learning", {}, None, "command line: --continuous-learning"),
    ("resume runs/mien", {}, None, "resume runs/mien"),
    ("resume runs/mine/checkpoints/step-00000007", {}, None, "resume runs/mine/checkpoints/step-00000007"),
    ("--data mine.jsonl --out runs/mine", DATA, None, "--out runs/mine"),
]  # fmt: skip
"""What is typed, the files it needs, and the key and the place of its only error."""


def typed_again(fix):
    """The arguments of a fix, which is a command line of this program."""
    words = [sys.executable, *PROGRAM.split()[1:]]
    assert fix[: len(words)] == words, fix
    return fix[len(words) :]


def followed(words, capsys):
    """The command lines that typing the fixes gives, up to the first without an error."""
    lines = []
    while words not in lines:
        lines.append(words)
        code = main(words if "--dry-run" in words else [*words, "--dry-run", "--json"])
        if code == 0:
            capsys.readouterr()
            return lines
        for error in json.loads(capsys.readouterr().out)["diagnostics"]:
            assert error["fix"], error
            words = typed_again(error["fix"])
    raise AssertionError(f"a circle of fixes: {lines}")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a run, on a machine that no other program fills."""
    monkeypatch.setattr(machine, "detect_machine", lambda: LAPTOP)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    trained(Path("runs/mine"), resolved(), 10)


@pytest.mark.parametrize(("typed", "files", "key", "where"), CASES)
def test_an_error_has_its_key_its_place_and_a_fix_that_works(
    here, capsys, typed, files, key, where
):
    for name, content in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content)
    assert main([*shlex.split(typed), "--json"]) == 2
    [error] = json.loads(capsys.readouterr().out)["diagnostics"]
    assert (error.get("key"), error["where"]) == (key, where)
    if key and typed.startswith("--") and error["fix"]:
        assert main([*typed_again(error["fix"]), "--dry-run"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "last"),
    [
        ("submit --nodes 2-4 --gpus-per-node 8", "--set train.global_batch=96"),
        (
            "submit --nodes 2-4 --gpus-per-node 8 --set train.global_batch=24",
            "--set train.global_batch=96",
        ),
        ("submit --nodes 2-30 --gpus-per-node 4", "--nodes 30"),
        ("submit --nodes 3-30 --gpus-per-node 8", "--set train.global_batch=240"),
        (
            "submit --nodes 2-3 --batch-size 5 --set train.accumulation=7",
            "--set train.accumulation=9",
        ),
        ("submit --nproc 4", "--ranks-per-node 4"),
        ("submit --gpus=4", "--gpus-per-node 4"),
        ("submit --set engine.nproc=3", "--set engine.nproc=1"),
        ("--nproc 3", "--set train.global_batch=9"),
        (
            "--nproc 3 --batch-size 5 --set train.accumulation=7 --set train.global_batch=96",
            "--set train.micro_batch=4 --set train.accumulation=9",
        ),
        ("--epohcs 3 --lrr 1e-3 --engine dpp", "--engine ddp"),
    ],
)
def test_fixes_lead_to_a_command_that_starts_and_in_no_circle(here, capsys, typed, last):
    assert last in " ".join(followed(shlex.split(typed), capsys)[-1])


def test_runs_typed_after_compare_are_for_report(here, capsys):
    assert main(["compare", "runs/mine", "runs/my run", "--json"]) == 2
    [error] = json.loads(capsys.readouterr().out)["diagnostics"]
    assert typed_again(error["fix"]) == ["report", "runs/mine", "runs/my run"]


@pytest.mark.parametrize("command", RUNS_OF)
def test_a_missing_run_gets_what_its_command_takes(here, capsys, command):
    options = ["--format", "safetensors"] if command == "export" else []
    assert main([command, "nothing", *options]) == 2
    assert f"allowed       {COMMANDS[command].allowed}\n" in capsys.readouterr().err + "\n"


FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
SETTING = re.compile(r"--set ['\"]?([A-Za-z_][\w.]*)=")
OTHERS = {"model.folder", "model.width", "KEY", "batch_size"}
"""Settings that no family has: of custom tasks, the form of --set, and what somebody typed."""


def test_every_option_setting_and_command_that_the_program_may_print_exists():
    settings = {key for family in FAMILIES for key in setting_infos(family)} | OTHERS
    flags = {option.flag for command in COMMANDS.values() for option in command.options}
    flags.add(HELP.flag)
    root = Path(__file__).parents[2]
    for package in ("launcher", "models", "training", "engines"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8").replace("{PROGRAM}", PROGRAM)
            assert {*SETTING.findall(text)} <= settings, path
            for line in re.findall(rf"{re.escape(PROGRAM)} [^\"\n]*", text):
                command = re.match(r"[a-z][a-z-]*", line[len(PROGRAM) + 1 :])
                assert command is None or command[0] in {*COMMANDS, *ALIASES, "help"}, path
                assert {*FLAG.findall(line)} <= flags, (path, line)


PROGRAMS = ("pip", "rm", "sed", "wandb", "python")
PLACE = re.compile(r"\b(DIR|FILE|RUN|FOLDER|PATH|NAME|TEXT|VALUE|N)\b")


def texts_of(node):
    """The texts that an expression may give, with X for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            filled = PROGRAM if ast.unparse(part).find("PROGRAM") >= 0 else "X"
            parts.append(part.value if isinstance(part, ast.Constant) else filled)
        yield "".join(parts)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp | ast.BoolOp):
        for part in getattr(node, "values", None) or (node.body, node.orelse):
            yield from texts_of(part)


def fixes_in(source):
    """The texts of all `fix=` in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.keyword) and node.arg == "fix":
            yield from texts_of(node.value)


def test_every_fix_in_the_program_is_one_to_type_and_prose_is_a_hint():
    root = Path(__file__).parents[2]
    texts = {
        (path.name, text)
        for package in ("launcher", "models", "training", "engines", "slurm")
        for path in (root / package).rglob("*.py")
        for text in fixes_in(path.read_text(encoding="utf-8"))
    }
    assert len(texts) > 40
    for name, text in texts:
        first = next(iter(shlex.split(text)), "--")
        assert first.startswith(("--", "X")) or first in PROGRAMS, (name, text)
        assert "  " not in text and not PLACE.search(text), (name, text)
