"""Whole command lines that resume a run: in its folder, in another one, or refused."""

import json
import shutil
from pathlib import Path

import pytest

from gearshift.launcher.__main__ import main
from tests.runs.conftest import REQUESTS, lines

pytestmark = pytest.mark.usefixtures("one_thread")

SETS = {
    "model.size": "tiny",
    "train.max_steps": "6",
    "optim.lr": "3e-4",
    "train.preview": "false",
    "train.global_batch": "4",
    "save.every": "2",
    "save.keep_last": "9",
    "log.every": "1",
}
FIRST = ["--data", "mine.jsonl", "--nproc", "1"]
FIRST += [arg for key, value in SETS.items() for arg in ("--set", f"{key}={value}")]
RANK_0 = "rank-00000.safetensors"
STEP_4 = "x/checkpoints/step-00000004"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of six steps with checkpoints of 2, 4 and 6."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "mine.jsonl").write_text(REQUESTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main([*FIRST, "--out", "x"]) == 0
    return folder / "x"


@pytest.fixture
def x(run, trained):
    """A copy of that run."""
    return Path(shutil.copytree(trained, "x", symlinks=True))


def history(folder):
    return [(line["step"], line["loss"], line["grad_norm"], line["lr"]) for line in lines(folder)]


def content(folder):
    """The content of a run folder except for the name of its last user."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in files}


def test_a_run_resumes_in_its_folder_from_an_earlier_step_with_its_changes(run, x):
    before = history(x)
    code, out, error = run("resume", STEP_4, "--set", "save.keep_last=8")
    assert code == 0, error
    assert out.splitlines()[0] == "resuming x from step 4" and "save.keep_last 9 → 8" in out
    assert "  keep_last: 8" in (x / "settings.yaml").read_text()
    origin = json.loads((x / "origins.json").read_text())["save.keep_last"]["origin"]
    assert origin == "--set save.keep_last=8"
    assert history(x) == before
    kept = {f"step-0000000{step}" for step in (2, 4, 6)} | {"superseded-step-00000006"}
    assert {path.name for path in (x / "checkpoints").iterdir()} == kept


def test_a_fork_leaves_the_run_as_it_was(run, x):
    before = content(x)
    code, _, error = run("resume", STEP_4, "--out", "y")
    assert code == 0, error
    assert history(Path("y")) == history(x)
    assert content(x) == before
    assert Path("y/settings.yaml").read_text() == (x / "settings.yaml").read_text()
    resumed = [json.loads(line) for line in Path("y/events.jsonl").read_text().splitlines()]
    assert [event["step"] for event in resumed if event["kind"] == "resumed"] == [4]


def test_a_run_becomes_longer_if_its_schedule_is_reset(run, x):
    before = history(x)
    code, _, error = run("resume", "x", "--max-steps", "8", "--reset", "schedule")
    assert code == 0, error
    assert history(x)[:6] == before
    assert [line["step"] for line in lines(x)] == list(range(1, 9))
    assert json.loads((x / "result.json").read_text())["steps"] == 8


def test_a_run_resumes_with_other_data_if_the_data_order_is_reset(run):
    assert run(*FIRST, "--out", "x")[0] == 0
    x = Path("x")
    Path("mine.jsonl").write_text(REQUESTS.replace("what is", "who was"))
    before = content(x)
    code, _, error = run("resume", STEP_4)
    assert code == 2
    assert "error: the data has changed" in error and "data.path" in error
    assert "--reset data" in error
    assert content(x) == before
    code, _, error = run("resume", STEP_4, "--reset", "data", "--seed", "3")
    assert code == 0, error
    assert [line["step"] for line in lines(x)] == list(range(1, 7))


def test_another_peak_branches_at_the_same_place_of_the_schedule(run, x):
    """The first step differs by the factor of the peaks alone: moments and data stay."""
    before = content(x)
    resume = ("resume", STEP_4, "--set", "save.every=1", "--out")
    code, _, error = run(*resume, "same")
    assert code == 0, error
    code, out, error = run(*resume, "branch", "--lr", "6e-4")
    assert code == 0, error
    assert out.splitlines()[0] == ("forking x at step 4 into branch")
    assert content(x) == before
    rates, branched = ([line["lr"] for line in lines(Path(name))] for name in ("same", "branch"))
    assert branched[:4] == rates[:4]
    assert branched[4:] == pytest.approx([2 * rate for rate in rates[4:]], rel=1e-12)
    events = map(json.loads, Path("branch/events.jsonl").read_text().splitlines())
    [changes] = [event["facts"]["changes"] for event in events if event["kind"] == "resumed"]
    assert "optim.lr 3e-4 → 6e-4" in changes
    assert "--lr 6e-4" in Path("branch/origins.json").read_text()
