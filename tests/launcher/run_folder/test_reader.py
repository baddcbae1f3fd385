"""Files of a run: read as they grow, and named with the line if they are damaged."""

import json

import pytest

from gearshift.launcher.run_folder.followed_lines import FollowedLines
from gearshift.launcher.run_folder.reader import RunReader
from tests.launcher.given import errors_of, resolved
from tests.launcher.runs import ended, trained

TRAIN = {"kind": "train", "step": 1, "loss": 2.5}
EVAL = {"kind": "eval", "step": 1, "split": "val", "metrics": {"val_loss": 2.0}}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = ended(trained(tmp_path / "run", resolved(), 10), "stopped", 10)
    write_lines(run, TRAIN, EVAL)
    return run


def write_lines(run, *lines):
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (run / "metrics.jsonl").write_text("".join(f"{text}\n" for text in texts))


def test_files_are_read_without_half_a_line_at_the_end(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    RunReader(run).check()
    assert list(RunReader(run).metrics()) == [TRAIN, EVAL]
    assert RunReader(run).result()["status"] == "stopped"
    RunReader(run / "missing").check()
    assert RunReader(run / "missing").result() is None


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"kind": "train", ', None),
        ("3", None),
        ({"note": "mine"}, None),
        ({"kind": "train"}, "train.step"),
        ({"kind": "train", "step": 10**30}, "train.step"),
        (TRAIN | {"device_memory_bytes": "much"}, "train.device_memory_bytes"),
        (TRAIN | {"loss": None, "parts": 3}, "train.parts"),
        (TRAIN | {"ram_percent": "x"}, "train.ram_percent"),
        (TRAIN | {"lr.head": -1}, "train.lr.head"),
        (TRAIN | {"samples": 10**400}, None),
        ({"kind": "eval", "step": 1}, "eval.metrics"),
        (EVAL | {"metrics": {"val_loss": "low"}}, "eval.metrics.val_loss.float"),
    ],
)
def test_a_damaged_line_is_named(run, line, key):
    write_lines(run, TRAIN, line, EVAL)
    [diagnostic] = errors_of(RunReader(run).check)
    assert (diagnostic.key, diagnostic.where) == (key, f"{run}/metrics.jsonl:2")
    assert diagnostic.fix == f"sed -i 2d {run}/metrics.jsonl"


BEST = {"metric": "val_loss", "value": 1.0, "step": 3}


@pytest.mark.parametrize(
    ("name", "content", "key"),
    [
        ("result.json", {}, "status"),
        ("result.json", {"steps": -1}, "steps"),
        ("result.json", {"wall_s": 1e300}, "wall_s"),
        ("result.json", {"time_split": {"data_s": "x"}}, "time_split.data_s"),
        ("result.json", {"best": {**BEST, "step": None}}, "best.step"),
        ("result.json", {"stages": [{"name": "a", "folder": "../b"}]}, "stages.0.folder"),
        ("origins.json", {"mode": {"replaced": -1}}, "mode.replaced"),
    ],
)
def test_a_value_of_another_type_is_named_with_its_file_and_key(run, said, name, content, key):
    status = {"status": "completed"} if name == "result.json" and content else {}
    (run / name).write_text(json.dumps(status | content))
    [diagnostic] = said("report", run, "--json", code=2)["diagnostics"]
    assert (diagnostic["key"], diagnostic["where"]) == (key, f"{run}/{name}")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("result.json", "resume run"),
        ("result.json", "verify run"),
        ("metrics.jsonl", "export run --format safetensors"),
        ("metrics.jsonl", "submit --resume run --dry-run"),
    ],
)
def test_every_command_names_the_damaged_file_once_and_writes_nothing(run, said, command, name):
    with (run / name).open("a") as file:
        file.write("3\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    err = said(*command.split(), code=2)
    line = ":3" if name == "metrics.jsonl" else ""
    assert err.count(f"/{name}{line} is damaged: ") == 1 and err.count("error: ") == 1
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*")) == before


def extend(run, *steps, end="\n"):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps({**TRAIN, "step": step}) + end for step in steps))


def steps_of(file):
    return [line["step"] for line in file.new()]


def test_each_complete_line_is_returned_once_and_again_after_a_cut_or_another_file(tmp_path):
    file, path = FollowedLines(tmp_path), tmp_path / "metrics.jsonl"
    assert steps_of(file) == [] and not file.restarted()
    extend(tmp_path, 1, 2)
    extend(tmp_path, 3, end="")
    assert steps_of(file) == [1, 2]
    extend(tmp_path, end="")
    path.open("a").write("\n")
    extend(tmp_path, 4)
    assert steps_of(file) == [3, 4]
    assert steps_of(file) == [] and not file.restarted()
    path.write_text("")
    extend(tmp_path, 1)
    assert steps_of(file) == [] and file.restarted()
    assert steps_of(file) == [1]
    path.rename(tmp_path / "old")
    extend(tmp_path, 1, 2)
    assert file.restarted() and steps_of(file) == [1, 2]
    extend(tmp_path, 9)
    assert not file.restarted() and steps_of(file) == [9]
