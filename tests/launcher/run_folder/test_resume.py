"""A resume is announced before anything is written, and invalid ones are refused."""

from pathlib import Path

import pytest

from gearshift.launcher.base.diagnostics import SettingsError
from gearshift.launcher.config.provenance import CliArgs
from gearshift.launcher.run_folder.resume_rules import decide
from gearshift.launcher.run_folder.run_plan import ResumeRequest
from tests.launcher.given import LAPTOP, SHORT, resolved
from tests.launcher.runs import ended, trained

pytestmark = pytest.mark.usefixtures("here")
X = Path("runs/x")


def cli_args(resume="runs/x", *sets, reset=(), model=None, mode=None, engine=None, **options):
    option_values = {
        SHORT[name]: (f"--{name.replace('_', '-')}", text) for name, text in options.items()
    }
    return CliArgs(model, mode, "--mode", engine, (), sets, option_values, resume, "resume", reset)


def decided(*args, out=None, **options):
    return decide(cli_args(*args, **options), None if out is None else Path(out), LAPTOP)


def refused(*args, out=None, **options):
    with pytest.raises(SettingsError) as wrong:
        decided(*args, out=out, **options)
    return str(wrong.value).splitlines()


def test_a_run_resumes_from_its_last_or_a_named_checkpoint_or_is_forked():
    trained(X, resolved(), 10, 20)
    decision = decided(engine="zero2", nproc="2", reset=["schedule"])
    assert decision.resume == ResumeRequest(
        X,
        None,
        ["schedule"],
        ["engine.name local → zero2", "engine.nproc 1 → 2", "train.micro_batch 8 → 4"],
    )
    assert decision.line == ("resuming runs/x from step 20; the learning-rate schedule restarts")
    assert decision.nothing_left is None
    decision = decided("runs/x/checkpoints/step-00000010", reset=["data", "optimizer"])
    assert decision.resume == ResumeRequest(X, 10, ["optimizer", "data"], [])
    assert decided(out="y").line == "forking runs/x at step 20 into y"
    assert decided(out="runs/x").line == "resuming runs/x from step 20"


def test_settings_are_compared_with_those_of_the_checkpoint_and_not_of_a_later_start():
    trained(X, resolved(), 10)
    path = X / "settings.yaml"
    path.write_text(path.read_text().replace("warmup: 6\n", "warmup: 4\n"))
    assert refused()[1].startswith("  where         runs/x/settings.yaml:")


def test_the_line_for_other_processes_is_accepted_as_printed():
    trained(X, resolved(), 10)
    (line,) = [line for line in refused(nproc="3") if line.startswith("  fix")]
    words = line.split()
    sets = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    reset = [words[i + 1] for i, word in enumerate(words) if word == "--reset"]
    assert decided("runs/x", *sets, nproc="3", reset=reset).nothing_left is None


DONE = "nothing to do: runs/x was completed at step 60; to train longer: "


@pytest.mark.parametrize(
    ("first", "hint"),
    [
        (resolved(), "--max-steps 120 --reset schedule"),
        (
            resolved("stop.after=60", max_steps="90"),
            "--max-steps 120 --reset schedule --set stop.after=null",
        ),
    ],
)
def test_a_completed_run_has_nothing_left_to_do(first, hint):
    ended(trained(X, first, 60), "completed", 60)
    plan = decided()
    assert plan.line == f"{DONE}python -m launcher resume runs/x {hint}"
    assert (plan.nothing_left["status"], plan.nothing_left["steps"]) == ("completed", 60)


@pytest.mark.parametrize("more", [{"max_steps": "240", "reset": ["schedule"]}, {"reset": ["data"]}])
def test_a_completed_run_resumes_if_it_is_extended(more):
    ended(trained(X, resolved(), 40, 60), "completed", 60)
    assert decided(**more).nothing_left is None
    assert decided("runs/x/checkpoints/step-00000040").nothing_left is None


def test_a_completed_run_gets_a_report_that_it_lacks_and_nothing_else_is_written(said, here):
    ended(trained(X, resolved(), 60), "completed", 60)
    before = {path for path in here.rglob("*")}
    said("resume", "runs/x")
    assert {path for path in here.rglob("*")} - before == {here / X / "report.html"}
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    assert said("resume", "runs/x").startswith(DONE)
    content = said("--resume", "runs/x", "--json")
    assert (content["exit_code"], content["status"], content["folder"]) == (
        0,
        "completed",
        "runs/x",
    )
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_a_dry_run_shows_the_resumed_run_and_its_changes(said):
    trained(X, resolved(), 10)
    lines = said("resume", "runs/x", "--num-workers", "1", "--dry-run").splitlines()
    assert "folder   runs/x" in lines
    assert "resume   resuming runs/x from step 10" in lines
    assert "changed  loader.workers 0 → 1" in lines
    resets = ("--reset", "data", "--reset", "optimizer")
    found = said("resume", "runs/x/last", *resets, "--dry-run", "--json")["resume"]
    assert found == {
        **found,
        "source": "runs/x",
        "step": 10,
        "reset": ["optimizer", "data"],
        "changes": [],
    }


@pytest.mark.parametrize("typed", ["./notes.txt", "link"])
def test_the_same_data_by_another_path_needs_no_reset(typed):
    Path("notes.txt").write_text("a\n")
    Path("link").symlink_to("notes.txt")
    trained(X, resolved(data="notes.txt"), 10)
    decision = decided(data=typed)
    assert decision.resume.changes == []
    assert decision.resolved.settings.data.path == f"{Path.cwd()}/notes.txt"


def test_data_that_moved_is_compared_by_its_content_later():
    Path("notes.txt").write_text("a\n")
    trained(X, resolved(data="notes.txt"), 10)
    Path("notes.txt").rename("moved.txt")
    changes = decided(data="moved.txt").resume.changes
    assert changes == [f"data.path {Path.cwd()}/notes.txt → moved.txt"]
    Path("notes.txt").write_text("b\n")
    assert "error: data.path moved.txt differs from" in "\n".join(refused(data="moved.txt"))
