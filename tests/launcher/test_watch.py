"""The command `watch` shows runs and leaves them alone."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from tests.launcher.given import ROOT, resolved
from tests.launcher.runs import begun, ended, trained
from tests.launcher.saved_runs import contents

pytestmark = pytest.mark.usefixtures("here")


def test_a_pipe_gets_plain_lines_once_for_each_run(here, said, capsys):
    begun(Path("new"), resolved())
    ended(trained(Path("old"), resolved(), 100), "completed", 100)
    (here / "job" / "slurm").mkdir(parents=True)
    before = contents(here)
    assert said("watch", "new", "old", "job") == (
        "run        new, not started\nrun        old, completed\nrun        job, not started\n"
    )
    assert main(["watch", "new", "old", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    states = [(line["folder"], line["state"]) for line in lines]
    assert states == [("new", "not started"), ("old", "completed")]
    assert contents(here) == before


def test_watch_alone_shows_the_newest_run_and_a_folder_of_runs_all(said):
    assert "error: there is no run in runs/" in said("watch", code=2)
    for name, at in (("b", 10), ("a", 20), ("staged/1-text", 5)):
        begun(Path("runs", name), resolved(), at)
    assert said("watch") == "run        runs/a, not started\n"
    stages = [{"name": "text", "folder": "1-text"}]
    Path("runs", "staged", "stages.json").write_text(json.dumps({"stages": stages}))
    os.utime(Path("runs", "staged", "stages.json"), (40, 40))
    Path("runs", "notes").mkdir()
    shown = [f"run        runs/{name}, not started" for name in ("b", "a", "staged/1-text")]
    assert said("watch", "runs", "runs/a").splitlines() == shown
    said("watch", "runs/notes", code=2)


def test_ctrl_c_ends_the_view_and_not_the_run(tmp_path):
    folder = begun(tmp_path / "mine", resolved())
    before = contents(folder)
    ours, its = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "launcher", "watch", str(folder)],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm", "COLUMNS": "40"},
    )
    os.close(its)
    received = b""
    while b"not started" not in received:
        received += os.read(ours, 65536)
    received = b""
    watching.send_signal(signal.SIGINT)
    assert watching.wait() == 0
    received += os.read(ours, 65536)
    os.close(ours)
    assert b"Traceback" not in received and b"not started" in received
    assert contents(folder) == before
