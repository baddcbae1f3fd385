"""Why two runs differ: equal ones are equal bit by bit, and a planted cause is named."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.differences import PLANTED, measure
from gearshift.launcher.run_folder import lock
from gearshift.launcher.saved_runs.differences import first_difference
from tests.launcher.saved_runs import change_state, change_tensor, checkpoint, contents, train
from tests.runs.conftest import REQUESTS
from tests.training.tiny import ticking

NORM = "model.norm.weight"


@pytest.fixture
def other(run, tmp_path):
    """A copy of the run."""
    return Path(shutil.copytree(run, tmp_path / "other", symlinks=True))


@pytest.fixture
def data(trained):
    """The data of the run, where it was."""
    path = trained.parent / "mine.jsonl"
    path.write_text(REQUESTS)
    yield path
    path.unlink(missing_ok=True)


def test_equal_runs_are_equal_and_what_changes_nothing_is_told(run, other, said):
    found = said("verify", run, "--against", other, "--json")
    assert (found["identical"], found["first_difference"], found["cause"]) == (True, None, None)
    assert {"data", "machine", "package", "seed", "setting", "source"} <= {*found["excluded"]}
    assert (found["lines"], found["checkpoints"]) == (6, 3)
    for step in (2, 4, 6):
        change_state(checkpoint(other, step), lambda s: s["facts"]["settings"].update(mode="fast"))
    found = said("verify", run, "--against", other, "--json")
    assert found["identical"] and "mode" in found["notes"][0]
    assert "setting" not in found["excluded"]


def test_a_changed_weight_is_named_without_a_replay(run, other, said):
    change_tensor(checkpoint(other, 4), f"weight|{NORM}|0", lambda t: t[5:6].add_(1.0))
    found = said("verify", run, "--against", other, "--json", code=1)
    first = found["first_difference"]
    assert (first["step"], first["kind"], first["name"]) == (4, "weight", NORM)
    assert (first["index"], found["cause"]["kind"], found["from_step"]) == ([5], "unknown", None)


@pytest.mark.slow
def test_a_replay_shows_which_checkpoint_was_changed(run, other, data, said):
    change_tensor(checkpoint(other, 4), f"weight|{NORM}|0", lambda t: t[5:6].add_(1.0))
    before = contents(run), contents(other)
    found = said("verify", run, "--against", other, "--json", code=1)
    cause = found["cause"]
    assert (cause["kind"], cause["key"]) == ("state", str(checkpoint(other, 4)))
    assert (found["first_difference"]["index"], found["from_step"]) == ([5], 2)
    assert before == (contents(run), contents(other))


def test_without_its_data_records_name_the_cause(run, other, said):
    for step in (2, 4, 6):
        change_state(
            checkpoint(other, step), lambda s: s["facts"]["settings"].update({"train.seed": 3})
        )
        change_tensor(checkpoint(other, step), f"weight|{NORM}|0", lambda t: t[5:6].add_(1.0))
    found = said("verify", run, "--against", other, "--json", code=1)
    cause = found["cause"]
    assert (cause["kind"], cause["key"], cause["a"], cause["b"]) == ("seed", "train.seed", 0, 3)
    assert (found["from_step"], found["visible"]["step"]) == (None, 2)
    assert len(found["notes"]) == 1 and found["rounding"] is False


def test_runs_that_cannot_be_compared_are_refused(run, other, said, tmp_path):
    with lock.hold(other):
        assert "watch" in said("verify", run, "--against", other, code=2)
    absent = tmp_path / "absent"
    assert f"verify {absent}" in said("verify", run, "--against", absent, code=2)
    for step in (2, 4, 6):
        change_state(
            checkpoint(other, step),
            lambda s: s["facts"]["settings"].update({"model.family": "abr"}),
        )
    err = said("verify", run, "--against", other, code=2)
    assert f"where         the command line: verify {run} --against {other}\n" in err


def test_runs_without_a_common_step_are_refused(run, other, said):
    shutil.rmtree(checkpoint(other, 2))
    for step in (4, 6):
        shutil.rmtree(checkpoint(run, step))
    (other / "metrics.jsonl").write_text("")
    err = said("verify", run, "--against", other, code=2)
    assert f"where         the command line: verify {run} --against {other}\n" in err


def lines_of(folder, *lines):
    """A trace of one rank."""
    folder.mkdir()
    (folder / "0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_the_first_line_of_a_step_is_that_of_its_first_phase(tmp_path):
    state = [2, 6, "weight", "w", "1"]
    samples = [[3, 0, "sample", "7", "1"], [3, 0, "sample", "9", "1"]]
    gradient = [3, 3, "gradient", "w", "1"]
    first = lines_of(tmp_path / "a", state, gradient, *samples)
    second = lines_of(
        tmp_path / "b", state, [*gradient[:4], "2"], samples[0], [3, 0, "sample", "8", "2"]
    )
    found = first_difference(first, second, 2, same_split=True)
    assert (found.step, found.kind, found.first, found.second) == (3, "sample", "9", "8")
    third = lines_of(tmp_path / "c", [*state[:4], "2"], [*gradient[:4], "2"], *samples)
    assert first_difference(first, third, 3, same_split=True).kind == "gradient"
    assert first_difference(first, third, 2, same_split=True).kind == "weight"
    assert first_difference(first, third, 2, same_split=False) is None
    fourth = lines_of(tmp_path / "d", state, gradient, *samples[::-1], samples[0])
    assert first_difference(first, fourth, 2, same_split=False) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "kind", "key"),
    [
        ("train.seed", 1, "weight", "train.seed"),
        ("optim.lr", 1e-3, "lr", "optim.lr"),
        ("optim.weight_decay", 0.5, "weight", "optim.weight_decay"),
        ("train.global_batch", 8, "sample", "train.global_batch"),
    ],
)
def test_a_setting_is_named_with_its_origins(tmp_path, run, data, said, setting, value, kind, key):
    changed = train(tmp_path, **{setting: value})
    found = said("verify", run, "--against", changed, "--json", code=1)
    assert (found["first_difference"]["kind"], found["cause"]["key"]) == (kind, key)
    assert found["cause"]["b"] == value and all(found["cause"]["origins"])


@pytest.mark.slow
def test_a_length_that_was_measured_is_named(tmp_path, said):
    runs = []
    for looks_in_a_second in (500, 400):
        folder = tmp_path / str(looks_in_a_second)
        folder.mkdir()
        with ticking(looks_in_a_second):
            runs.append(train(folder, **{"train.max_steps": None, "train.time": "1s"}))
    result = said("verify", runs[0], "--against", runs[1], "--json", code=1)
    cause = result["cause"]
    assert (cause["kind"], cause["key"]) == ("measured", "fits")
    # The rate of the third step is that of its place when the length was fitted.
    first = result["first_difference"]
    assert (first["kind"], first["step"], cause["a"][0][0], cause["b"][0][0]) == ("lr", 4, 2, 2)
    assert cause["a"][0][1] > cause["b"][0][1]
    assert result["rounding"] is False


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a sample", "random state lost in a resume", "an unset buffer", "the world size"]
)
def test_a_planted_cause_is_named(name, tmp_path):
    [planted] = [each for each in PLANTED if each.name == name]
    row = measure(planted, tmp_path / "runs")
    assert row.is_right, row
