"""The command in the last line of a completed run works as it is printed."""

from __future__ import annotations

import shlex

import pytest

from tests.runs.conftest import REQUESTS

QUICK = ("--max-steps", "2", "--set", "train.preview=false", "--out", "my run")


def last_command(done):
    """The command in the last line of the output, without the program's name."""
    assert done.returncode == 0, done.stderr
    _, _, command = done.stdout.splitlines()[-1].partition("python -m launcher ")
    return shlex.split(command)


@pytest.mark.parametrize(
    ("given", "stdin"),
    [
        (("--data", "embedded:python"), None),
        pytest.param(("--data", "embedded:commands"), None, marks=pytest.mark.slow),
        pytest.param(("--data", "my rows.jsonl"), "what is 3", marks=pytest.mark.slow),
        pytest.param(("--mode", "staged", "--data", "my rows.jsonl"), "hi", marks=pytest.mark.slow),
    ],
)
def test_the_model_is_used_by_the_printed_command(program, given, stdin):
    (program.folder / "my rows.jsonl").write_text(REQUESTS)
    done = program("--model", "language:tiny", *given, *QUICK)
    command = last_command(done)
    assert command[:2] == ["predict", "my run"]
    used = program(*command, "--json", input=stdin)
    assert used.returncode == 0, used.stderr
    assert '"predictions": [' in used.stdout
