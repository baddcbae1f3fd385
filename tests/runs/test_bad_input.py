"""Invalid input to the real program: the message, exit code 2, nothing written."""

import json
import os
import resource

import pytest

from launcher.__main__ import main
from launcher.run import failures
from tests.launcher.given import set_torchrun
from tests.models.language.test_pretrained import CONFIGS, save


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


def test_a_run_folder_or_working_directory_that_may_not_be_written_is_refused(program, bound_by_permissions):
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
