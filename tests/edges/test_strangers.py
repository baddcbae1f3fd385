"""A run folder that somebody else made: links, pipes and deep JSON in it are errors, and nothing is written through them."""

import os
from itertools import cycle

import pytest

from gearshift.launcher.__main__ import main
from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.run_folder import run_folder
from tests.launcher.given import resolved
from tests.launcher.runs import ended, trained

LONGER = ["--max-steps", "90", "--reset", "schedule"]
COMMANDS = {
    **{name: [name, "run"] for name in ("evaluate", "verify", "report", "track")},
    "watch": ["watch", "run", "--once"],
    "predict": ["predict", "run", "--input", "x"],
    "export": ["export", "run", "--format", "safetensors"],
    "resume": ["resume", "run", *LONGER],
    "dry run": ["resume", "run", "--dry-run", *LONGER],
    "plan": ["explain", "--resume", "run"],
}
NAMES = (".report.html.new", "evaluations.jsonl", "checkpoints/step-00000007", "best")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in the working directory, and a file outside of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "victim").write_bytes(b"precious")
    return ended(trained(tmp_path / "run", resolved(), 2), "completed", 2)


def place(path, make):
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    make(path)


@pytest.mark.parametrize(("command", "name"), zip(COMMANDS, cycle(NAMES)))
def test_a_link_out_of_a_run_folder_is_an_error(run, command, name, capfd):
    place(run / name, lambda path: path.symlink_to(run.parent / "victim"))
    assert main(COMMANDS[command]) == 2
    assert f"run/{name} is a link" in capfd.readouterr().err
    assert (run.parent / "victim").read_bytes() == b"precious"


def test_a_moved_folder_of_checkpoints_and_a_pipe_are_errors_too(run, capfd):
    place(run / "metrics.jsonl", os.mkfifo)
    for command in COMMANDS.values():
        assert main(command) == 2
    (run / "metrics.jsonl").unlink()
    (run / "checkpoints").rename(run.parent / "moved")
    (run / "checkpoints").symlink_to(run.parent / "moved")
    for command in COMMANDS.values():
        assert main(command) == 2
    assert "run/checkpoints is a link" in capfd.readouterr().err


def test_links_of_the_run_itself_and_of_trackers_are_none_of_these(run):
    (run / ".best.new").symlink_to("checkpoints/step-00000002")
    (run / "wandb").mkdir()
    (run / "wandb/latest-run").symlink_to("run-1")
    run_folder.check_regular(run)
    run_folder.check_regular(run / "missing")
    for target in ("/etc", "checkpoints/../..", "samples/x"):
        (run / ".best.new").unlink()
        (run / ".best.new").symlink_to(target)
        with pytest.raises(SettingsError, match=r"\.best\.new is a link"):
            run_folder.check_regular(run)


@pytest.mark.parametrize("name", ["events.jsonl", "metrics.jsonl", "result.json", "origins.json"])
def test_deep_json_is_an_error_or_a_line_that_is_skipped(run, name, capfd):
    depth = 200_000
    content = '{"kind": "started", "step": 1, "a":' + '{"a":' * depth + "1" + "}" * depth + "}\n"
    (run / name).write_text(content)
    is_skipped = name == "events.jsonl"
    assert main(["report", "run"]) == (0 if is_skipped else 2)
    is_unread = is_skipped or name in ("origins.json", "metrics.jsonl")
    assert main(["watch", "run", "--once"]) == (0 if is_unread else 2)
    assert ("too many levels" in capfd.readouterr().err) != is_skipped


def test_a_text_of_a_run_cannot_control_the_terminal_or_the_page(run, capfd):
    ended(run, "failed", 2, reason="\x1b[2J<script>alert(1)</script>")
    assert main(["watch", "run", "--once"]) == main(["report", "run"]) == 0
    text, page = capfd.readouterr().out, (run / "report.html").read_text()
    assert "[2J<script>" in text and "\x1b" not in text
    assert "alert(1)" in page and "<script>alert" not in page
