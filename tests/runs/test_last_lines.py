"""The command in the last line of a completed run works as it is printed."""

from __future__ import annotations

import io
import shlex
import sys

import pytest

from launcher.__main__ import main
from tests.runs.conftest import REQUESTS

QUICK = ("--max-steps", "2", "--set", "train.preview=false", "--out", "my run")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    "given",
    [
        ("--data", "my rows.jsonl"),
        pytest.param(("--mode", "staged", "--data", "my rows.jsonl"), marks=pytest.mark.slow),
    ],
)
def test_the_model_is_used_by_the_printed_command(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my rows.jsonl").write_text(REQUESTS)
    assert main(["--model", "language:tiny", *given, *QUICK]) == 0
    last_line = capsys.readouterr().out.splitlines()[-1]
    command = shlex.split(last_line.partition("python -m launcher ")[2])
    assert command[:2] == ["predict", "my run"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("what is 3\n"))
    assert main([*command, "--max-tokens", "4", "--json"]) == 0
    assert '"predictions": [' in capsys.readouterr().out
