"""Invalid input to the real program: the message, exit code 2, nothing written."""

import json
import os
import resource

import pytest

from launcher.__main__ import main
from launcher.run import failures
from tests.launcher.given import set_torchrun
from tests.models.language.test_pretrained import CONFIGS, save
from tests.runs.conftest import REQUESTS

YAML = "train:\n  micro_bacth: 4\noptim:\n  lr: fast\n"
BAD = [
    # Each command line, parts of its messages with a | between them, and the files it needs.
    (
        "--epohcs 3",
        "error: unknown option '--epohcs'|  where         command line: --epohcs|"
        "  did you mean  --epochs|  fix           --epochs 3",
        {},
    ),
    ("lits engines", "unknown command 'lits'|mean  list|fix           python -m launcher list", {}),
    ("--mode fsat", "unknown mode 'fsat'|  did you mean  fast\n  fix           --mode fast", {}),
    ("--engine zreo2", "unknown engine 'zreo2'|  fix           --engine zero2", {}),
    (  # all errors of a file at once, with their lines
        "--config mine.yaml",
        "  where         mine.yaml:2 train.micro_bacth|  where         mine.yaml:4 optim.lr",
        {"mine.yaml": YAML},
    ),
    ("--fsat --lr quick", "error: unknown option '--fsat'|error: optim.lr 'quick' is text", {}),
    ("--lr -1e-3", "error: optim.lr -1e-3 is out of range", {}),
    (
        "--set train.global_batch=10 --batch-size 4",
        "10 is not a multiple of train.micro_batch 4",
        {},
    ),
    ("--nproc 100000", "error: engine.nproc 100000 is more than", {}),
    ("--lr", "error: option '--lr' needs a value|  allowed       --lr X", {}),
    ("--fast=3", "error: option '--fast' takes no value", {}),
    ("--lite zero2", "unexpected argument 'zero2'|  did you mean  --engine zero2", {}),
    ("--config mine.yaml", "error: mine.yaml does not exist", {}),
    ("--config mine.yaml", "mine.yaml cannot be read as YAML", {"mine.yaml": "a: [1\nb: 2\n"}),
    ("--config mine.json", "mine.json cannot be read as JSON", {"mine.json": '{"a": 1,,}'}),
    ("--config mine.yaml", "mine.yaml is not UTF-8 text", {"mine.yaml": b"a: \xff\n"}),
    ("--out old", "the run folder old is a file", {"old": ""}),
    ("--out old/new", "is a file", {"old": ""}),
    ("--out " + "x" * 300, "where         command line: --out", {}),
]
BAD_DATA = [
    ("--data mine.txt", "error: 'mine.txt' is empty", {"mine.txt": ""}),
    (
        "--data mine.txt",
        "error: 'mine.txt' is not UTF-8|  where         mine.txt:1, byte 0",
        {"mine.txt": b"\xcf\xf0\xe8\xe2\xe5\xf2\n" * 200},
    ),
    ("--data mine.txt", "(documents): eval.share=0.1 gives 0 for val", {"mine.txt": "a word\n"}),
    (
        "--data mine.jsonl --set train.global_batch=100",
        "global_batch 100 exceeds the 64 training samples|fix           --set train.global_batch=64",
        {"mine.jsonl": REQUESTS},
    ),
    (
        "--engine zero2 --ds-config mine.json",
        "train_batch_size 3 differs from train.global_batch 8|  where         mine.json",
        {"mine.json": '{"train_batch_size": 3}'},
    ),
]


@pytest.mark.parametrize(("arguments", "parts", "files"), [*BAD, *BAD_DATA])
def test_invalid_input_is_reported_and_nothing_is_written(
    program, arguments, parts, files, monkeypatch, capsys
):
    for path, content in files.items():
        target = program.folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = program.files()
    monkeypatch.chdir(program.folder)
    has_data = (arguments, parts, files) in BAD_DATA
    one_process = ["--model", "language:tiny", "--nproc", "1"] if has_data else []

    code = main([*one_process, *arguments.split()])

    shown = capsys.readouterr()
    assert code == 2, shown
    for part in parts.split("|"):
        assert part in shown.err
    assert "Traceback" not in shown.err
    assert has_data or shown.out == ""
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


def test_a_run_folder_or_working_directory_that_may_not_be_written_is_refused(
    program, bound_by_permissions
):
    (program.folder / "mine").mkdir(mode=0o500)
    done = program("--out", "mine/new", prefix=bound_by_permissions)
    assert done.returncode == 2, done.stderr
    assert "the run folder mine/new" in done.stderr and "is not writable" in done.stderr
    program.folder.chmod(0o500)
    done = program("--lite", prefix=bound_by_permissions)
    program.folder.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert "is not writable" in done.stderr
    assert program.files() == ["mine"]


def test_a_disk_that_is_full_leaves_no_run_folder(program):
    def no_space():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    done = program("--lite", preexec_fn=no_space)
    assert done.returncode == 2, done.stderr
    assert "cannot write the run folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert program.files() == []


def test_ranks_of_one_machine_report_invalid_arguments_once(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "0")
    assert main(["--dry-run"]) == 2
    assert "error: RANK=0 without WORLD_SIZE" in capsys.readouterr().err
    for rank, count in ((0, 1), (1, 0)):
        set_torchrun(monkeypatch, rank, size=4)
        assert main(["--nproc", "2", "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert error.count("where         --nproc 2") == count


def test_a_secret_of_the_environment_is_not_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    report = failures.failed(ValueError("login with 0123456789abcdef failed"), 0)
    assert "0123456789abcdef" not in report.text + report.trace
    assert "login with [WANDB_API_KEY] failed" in report.text
    assert os.environ["WANDB_API_KEY"] == "0123456789abcdef"
