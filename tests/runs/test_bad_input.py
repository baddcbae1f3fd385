"""Invalid input to the real program: the message, exit code 2, nothing written."""

import json
import os
import resource
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.run import failures
from tests.launcher.given import set_torchrun
from tests.models.language.test_pretrained import CONFIGS, save
from tests.runs.conftest import REQUESTS


@dataclass(frozen=True)
class Bad:
    """An invalid command line, the files it needs, and lines of the expected messages."""

    arguments: str
    lines: tuple[str, ...]
    files: dict[str, str | bytes] = field(default_factory=dict)


YAML = "train:\n  micro_bacth: 4\noptim:\n  lr: fast\n"
BAD = {
    "misspelt option": Bad(
        "--epohcs 3",
        (
            "error: unknown option '--epohcs'",
            "  where         command line: --epohcs",
            "  did you mean  --epochs",
            "  fix           --epochs 3",
        ),
    ),
    "misspelt command": Bad(
        "lits engines",
        (
            "error: unknown command 'lits'",
            "  did you mean  list",
            "  fix           python -m launcher list",
        ),
    ),
    "misspelt mode": Bad(
        "--mode fsat",
        ("error: unknown mode 'fsat'", "  did you mean  fast\n  fix           --mode fast"),
    ),
    "misspelt engine": Bad(
        "--engine zreo2",
        ("error: unknown engine 'zreo2'", "  did you mean  zero2\n  fix           --engine zero2"),
    ),
    "misspelt model": Bad("--model langauge:tiny", ("error: unknown model 'langauge'",)),
    "misspelt size": Bad("--model language:tyni", ("error: unknown model size 'tyni'",)),
    "misspelt key": Bad("--set optim.rl=1", ("error: unknown setting 'optim.rl'",)),
    "all errors of a file at once, with their lines": Bad(
        "--config mine.yaml",
        (
            "  where         mine.yaml:2 train.micro_bacth",
            "  where         mine.yaml:4 optim.lr",
        ),
        {"mine.yaml": YAML},
    ),
    "errors of arguments and settings together": Bad(
        "--fsat --lr quick", ("error: unknown option '--fsat'", "error: optim.lr 'quick'")
    ),
    "text for a number": Bad("--lr quick", ("error: optim.lr 'quick' is text, not a number",)),
    "fraction for a whole number": Bad("--max-steps 2.5", ("error: train.max_steps 2.5",)),
    "negative batch": Bad("--batch-size -4", ("error: train.micro_batch -4 is out of range",)),
    "negative number with an exponent": Bad(
        "--lr -1e-3", ("error: optim.lr -1e-3 is out of range",)
    ),
    "micro-batch that does not divide": Bad(
        "--set train.global_batch=10 --batch-size 4",
        ("error: train.global_batch 10 is not a multiple of train.micro_batch 4",),
    ),
    "no process": Bad("--nproc 0", ("error: engine.nproc 0 is out of range",)),
    "more processes than cores": Bad(
        "--nproc 100000", ("error: engine.nproc 100000 is more than",)
    ),
    "missing value": Bad("--lr", ("error: option '--lr' needs a value", "  allowed       --lr X")),
    "value of a flag": Bad("--fast=3", ("error: option '--fast' takes no value",)),
    "argument without an option": Bad(
        "--lite zero2", ("error: unexpected argument 'zero2'", "  did you mean  --engine zero2")
    ),
    "missing data": Bad("--data notes/", ("notes",)),
    "missing settings file": Bad("--config mine.yaml", ("error: mine.yaml does not exist",)),
    "broken YAML": Bad(
        "--config mine.yaml", ("mine.yaml cannot be read as YAML",), {"mine.yaml": "a: [1\nb: 2\n"}
    ),
    "broken JSON": Bad(
        "--config mine.json", ("mine.json cannot be read as JSON",), {"mine.json": '{"a": 1,,}'}
    ),
    "settings that are not text": Bad(
        "--config mine.yaml", ("mine.yaml is not UTF-8 text",), {"mine.yaml": b"a: \xff\n"}
    ),
    "run folder of another run": Bad(
        "--out old",
        ("error: the run folder old contains another run", "  where         --out old"),
        {
            "old/settings.yaml": "mode: fast\n",
            "old/origins.json": "{}",
            "old/metrics.jsonl": "{}\n",
        },
    ),
    "folder with settings of the user": Bad(
        "--out old",
        (
            "error: the folder old is not empty and not a run folder: it has settings.yaml",
            "  where         --out old",
        ),
        {"old/settings.yaml": "mode: fast\n"},
    ),
    "run folder that is a file": Bad("--out old", ("the run folder old is a file",), {"old": ""}),
    "run folder below a file": Bad("--out old/new", ("is a file",), {"old": ""}),
    "run folder with a name that is too long": Bad("--out " + "x" * 300, ("File name too long",)),
    "unknown list": Bad("list engine", ("  did you mean  engines",)),
    "unknown setting to explain": Bad("explain optim.ler", ("  did you mean  optim.lr",)),
    "unknown shell": Bad("completion bsh", ("  did you mean  bash",)),
}


BAD_DATA = {
    "empty file": Bad("--data mine.txt", ("error: 'mine.txt' is empty",), {"mine.txt": ""}),
    "text that is not UTF-8": Bad(
        "--data mine.txt",
        ("error: 'mine.txt' is not UTF-8", "  where         mine.txt:1, byte 0"),
        {"mine.txt": b"\xcf\xf0\xe8\xe2\xe5\xf2\n" * 200},
    ),
    "too little to hold out": Bad(
        "--data mine.txt",
        ("error: 1 group (documents): eval.share=0.1 gives 0 for val",),
        {"mine.txt": "a word\n"},
    ),
    "shorter than one batch": Bad(
        "--data mine.jsonl --set train.global_batch=100",
        (
            "error: train.global_batch 100 exceeds the 64 training samples",
            "  fix           --set train.global_batch=64",
        ),
        {"mine.jsonl": REQUESTS},
    ),
    "DeepSpeed JSON with another batch": Bad(
        "--engine zero2 --ds-config mine.json",
        (
            "error: train_batch_size 3 differs from train.global_batch 8",
            "  where         mine.json",
        ),
        {"mine.json": '{"train_batch_size": 3}'},
    ),
}


@pytest.mark.parametrize("name", [*BAD, *BAD_DATA])
def test_invalid_input_is_reported_and_nothing_is_written(program, name, monkeypatch, capsys):
    bad = BAD.get(name) or BAD_DATA[name]
    write(program.folder, bad.files)
    before = program.files()
    monkeypatch.chdir(program.folder)
    one_process = ["--model", "language:tiny", "--nproc", "1"] if name in BAD_DATA else []

    code = main([*one_process, *bad.arguments.split()])

    shown = capsys.readouterr()
    assert code == 2, shown
    for line in bad.lines:
        assert line in shown.err
    assert "Traceback" not in shown.err
    assert name in BAD_DATA or shown.out == ""
    assert program.files() == before


def test_a_pretrained_model_without_its_weights_is_refused(program, monkeypatch, capsys):
    folder = save(program.folder / "model", CONFIGS["llama"]())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    before = program.files()
    monkeypatch.chdir(program.folder)
    arguments = ["--data", "embedded:commands", "--set", "model.pretrained=model", "--nproc", "1"]
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert "do not fit its config.json: missing: model.layers.3." in stderr
    assert "LOAD REPORT" not in stderr
    assert "Traceback" not in stderr and program.files() == before


@pytest.mark.slow
def test_unreadable_data_is_reported_and_nothing_stays(program, bound_by_permissions):
    (program.folder / "locked").mkdir(mode=0o000)
    done = program("--data", "locked", "--nproc", "1", prefix=bound_by_permissions)
    assert done.returncode == 2, done.stderr
    assert "error: 'locked' cannot be read: Permission denied" in done.stderr
    assert program.files() == ["locked"]


@pytest.mark.slow
def test_invalid_data_of_two_ranks_is_reported_once(program):
    (program.folder / "mine.txt").touch()
    done = program("--model", "language:tiny", "--data", "mine.txt", "--nproc", "2")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: 'mine.txt' is empty") == 1
    assert "Traceback" not in done.stderr
    assert program.files() == ["mine.txt"]


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write the files of an invalid input into the working directory."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())


def test_a_run_folder_that_may_not_be_written_is_refused(program, bound_by_permissions):
    (program.folder / "mine").mkdir(mode=0o500)
    for out in ("mine", "mine/new"):
        done = program("--out", out, prefix=bound_by_permissions)
        assert done.returncode == 2, done.stderr
        assert f"the run folder {out}" in done.stderr
        assert "is not writable" in done.stderr
    assert program.files() == ["mine"]


def test_a_working_directory_that_may_not_be_written_is_refused(program, bound_by_permissions):
    program.folder.chmod(0o500)
    done = program("--lite", prefix=bound_by_permissions)
    program.folder.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "is not writable" in done.stderr
    assert program.files() == []


def test_a_disk_that_is_full_leaves_no_run_folder(program, monkeypatch):
    # Coverage writes its own file at exit, and reports the full disk with a traceback.
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)

    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = program("--lite", preexec_fn=no_space)
    assert done.returncode == 2, done.stderr
    assert "cannot write the run folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert program.files() == []


def test_half_set_variables_of_a_launcher_are_named(program, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    done = program("--dry-run")
    assert done.returncode == 2
    assert "error: RANK=0 without WORLD_SIZE" in done.stderr


def test_ranks_of_one_machine_report_invalid_arguments_once(program, monkeypatch):
    has_errors = []
    for rank in range(2):
        set_torchrun(monkeypatch, rank)
        done = program("--mode", "fsat")
        assert done.returncode == 2
        has_errors.append(bool(done.stderr))
    assert has_errors == [True, False]


def test_nproc_is_refused_under_torchrun(program, monkeypatch):
    set_torchrun(monkeypatch, rank=0, size=4)
    done = program("--nproc", "2", "--dry-run")
    assert done.returncode == 2
    assert "error: --nproc 2, but torchrun started 4 on this machine" in done.stderr


def test_errors_in_json_are_on_stdout(program):
    done = program("--json", "--mode", "fsat")
    assert (done.returncode, done.stderr) == (2, "")
    diagnostic = json.loads(done.stdout)["diagnostics"][0]
    assert (diagnostic["key"], diagnostic["did_you_mean"]) == ("mode", "fast")


def test_a_secret_of_the_environment_is_not_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    report = failures.failed(ValueError("login with 0123456789abcdef failed"), 0)
    assert "0123456789abcdef" not in report.text + report.trace
    assert "login with [WANDB_API_KEY] failed" in report.text
    assert os.environ["WANDB_API_KEY"] == "0123456789abcdef"
