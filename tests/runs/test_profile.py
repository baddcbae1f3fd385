"""`--profile N` of a whole run: its files, its refusal, and losses that stay the same."""

import pytest

from gearshift.launcher.__main__ import main
from tests.launcher.custom_tasks import BODY, HEAD, LINE, write
from tests.runs.conftest import losses

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Trains a small custom task in a folder of its own; its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    task = write(tmp_path, HEAD + LINE + BODY) + ":Line"

    def run(out, *args):
        every = ("--set", "log.every=1", "--max-steps", "6", "--epochs", "4")
        return main(["--model", task, "--out", out, *every, *args])

    return run


@pytest.mark.slow
def test_a_profile_changes_no_loss_and_is_named_on_the_console(train, tmp_path, capfd):
    assert train("plain") == 0
    assert train("traced", "--profile", "2") == 0
    assert losses(tmp_path / "traced") == losses(tmp_path / "plain")
    text = "profile    profile/trace-rank0.json.gz: 2 steps from 3; open it in https://ui.perfetto"
    assert text in capfd.readouterr().out
    assert "aten::addmm" in (tmp_path / "traced/profile/operators.txt").read_text()
    assert not (tmp_path / "plain/profile").exists()
