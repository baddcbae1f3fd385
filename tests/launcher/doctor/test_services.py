"""Slurm and W&B: missing, silent, not logged in."""

import pytest

from launcher.doctor.services import check_slurm, check_wandb
from slurm import queue
from tests.launcher.doctor.installed import packages

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH with nothing but what `programs` writes."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def write(*names, text="exit 0"):
        for name in names:
            (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
            (tmp_path / name).chmod(0o755)

    return write


def test_a_slurm_that_lacks_a_command_or_does_not_answer_is_a_warning(programs):
    assert check_slurm().found == "not on this machine"
    programs("sbatch", "sinfo", "srun", "scontrol")
    found = check_slurm()
    assert (found.status, found.found) == ("warning", "scancel not on PATH")
    programs(*queue.COMMANDS, text="echo gpu; echo cpu; echo gpu")
    assert check_slurm().found == "partitions cpu, gpu"
    text = "echo 'sinfo: retrying' >&2; echo 'sinfo: Unable to contact' >&2; exit 1"
    programs("sinfo", text=text)
    found = check_slurm()
    assert found.status == "warning" and found.found.endswith("answer: sinfo: Unable to contact")


def wandb(folder, environ, **versions):
    installed = packages(folder / "site", **{"wandb": "0.20.1", **versions})
    return check_wandb(installed, environ, folder)


def test_the_environment_tells_whether_wandb_is_logged_in(tmp_path):
    for number, (environ, status, text) in enumerate(
        (
            ({}, "warning", "not logged in"),
            ({"WANDB_MODE": "offline"}, "ok", "offline (WANDB_MODE)"),
            ({"WANDB_API_KEY": KEY}, "ok", "logged in (WANDB_API_KEY)"),
            ({"WANDB_API_KEY": "abc"}, "warning", "too short"),
            ({"WANDB_API_KEY": ""}, "warning", "too short"),
            ({"WANDB_IDENTITY_TOKEN_FILE": "x"}, "ok", "logged in (WANDB_IDENTITY_TOKEN_FILE)"),
        )
    ):
        found = wandb(tmp_path / str(number), environ)
        assert found.status == status and text in found.found, environ
        assert KEY not in found.text
    assert wandb(tmp_path / "old", {"WANDB_API_KEY": KEY}, wandb="0.10").status == "warning"


def test_a_netrc_file_tells_whether_wandb_is_logged_in(tmp_path):
    file = tmp_path / ".netrc"
    file.write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    found = wandb(tmp_path, {})
    assert found.status == "ok" and KEY not in found.text
    other = wandb(tmp_path / "b", {"NETRC": str(file), "WANDB_BASE_URL": "https://wandb.mine"})
    assert other.status == "warning"
    file.write_text("machine api.wandb.ai nonsense\n")
    broken = wandb(tmp_path / "c", {"NETRC": str(file)})
    assert broken.status == "warning" and "cannot read" in broken.found
