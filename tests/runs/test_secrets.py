"""Credentials in URLs and in the environment reach no output and no file, in any command."""

import os

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.run import run_error
from tests.runs.conftest import REQUESTS

SECRET = "canary-9f2c71"
URL = f"https://me:{SECRET}@example.invalid/data.csv?token={SECRET}"
GIVEN = ("--data", "mine.jsonl", "--model", "language:tiny", "--set")
SET = (*GIVEN, f"download.files=[{{url: '{URL}'}}]", "--set", "train.preview=false")
COMMANDS = (
    ("explain", "download.files", *SET),
    ("explain", "--json", *SET),
    ("--dry-run", "--json", *SET),
    ("--max-steps", "2", "--out", "x", *SET),
    ("--max-steps", "2", "--out", "y", "--json", "--config", "mine.yaml"),
    ("verify", "x"),
    ("export", "x", "--format", "safetensors", "--out", "exported"),
    ("predict", "exported", "--input", "what is 3", "--json"),
    ("predict", "x", "--input", "mine.jsonl", "--max-tokens", "4"),
    ("compare", "--modes", "lite", "--steps", "1", "--out", "compared", *SET),
    ("submit", "--dry-run", "--out", "z", *SET),  # refused
    ("submit", "--dry-run", "--out", "z", "--config", "mine.yaml"),
)
"""In this order: later ones read what earlier ones wrote."""


@pytest.mark.slow
def test_a_secret_is_in_no_output_and_no_file(program, inside):
    own = "download: {files: [{url: '" + URL + "'}]}\ndata: {path: mine.jsonl}\n"
    (program.folder / "mine.yaml").write_text(f"model: language:tiny\n{own}")
    (program.folder / "mine.jsonl").write_text(REQUESTS)
    for command in COMMANDS:
        done = inside(*command)
        assert "Traceback" not in done.stderr, command
        assert SECRET not in done.stdout + done.stderr, command
    files = (path for path in program.folder.rglob("*") if path.is_file())
    leaks = [path for path in files if SECRET.encode() in path.read_bytes()]
    assert leaks == [program.folder / "mine.yaml"]


TYPED = "https://ann:canary@host.invalid/x"
START = ["--model", "language:tiny", "--dry-run"]


@pytest.mark.parametrize(
    "arguments",
    [
        *([*START, "--out", TYPED], [*START, "--data", TYPED], [*START, "--config", TYPED]),
        *([*START, "--mode", TYPED], [*START, "--set", f"model.pretrained={TYPED}"]),
        *(
            [*START, "--set", f"{key}={TYPED}"]
            for key in ("download.folder", "feature_cache.folder")
        ),
        *(["evaluate", TYPED], ["resume", TYPED], ["report", TYPED], ["watch", TYPED]),
        *(
            ["new-task", "guarded_task", "--out", TYPED],
            ["compare", "--out", TYPED],
            ["plan", "--data", TYPED],
        ),
        *(["data", "fetch", "--out", TYPED, "--set", "download.files=[file:///etc/hostname]"],),
    ],
)
def test_a_password_in_the_place_of_a_path_is_not_printed(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    text = ""
    for form in ([], ["--json"]):
        assert main([*arguments, *form]) == 2
        text += "".join(capfd.readouterr())
    assert "canary" not in text and "***" in text
    assert list(tmp_path.iterdir()) == []


def test_a_secret_of_the_environment_is_not_shown(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    report = run_error.of_error(ValueError("login with 0123456789abcdef failed"), 0)
    assert "0123456789abcdef" not in report.text + report.trace
    assert "login with [WANDB_API_KEY] failed" in report.text
    assert os.environ["WANDB_API_KEY"] == "0123456789abcdef"
