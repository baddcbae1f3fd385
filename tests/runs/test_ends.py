"""How real runs end: by a signal, and with the line that says what to do next."""

import signal
import subprocess
import sys

import pytest

from tests.runs.conftest import REQUESTS, environment

WORDS = ["--model", "language:tiny", "--data", "mine.jsonl", "--out", "mine", "--epochs", "1000"]
WORDS += ["--set", "log.every=1", "--set", "train.preview=false"]


@pytest.mark.parametrize(
    ("nproc", "number", "code"), [(2, signal.SIGTERM, 75), (1, signal.SIGINT, 130)]
)
def test_a_signal_is_answered_with_a_checkpoint_and_its_code(tmp_path, nproc, number, code):
    (tmp_path / "mine.jsonl").write_text(REQUESTS)
    command = [sys.executable, "-m", "launcher", *WORDS, "--nproc", str(nproc)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("step "):
                process.send_signal(number)
                break
        rest = process.stdout.read()
    assert process.returncode == code, rest
    assert rest.splitlines()[-1] == (
        "run folder mine; run it again: python -m launcher --config mine/settings.yaml"
    )
    assert list((tmp_path / "mine" / "checkpoints").iterdir())
