"""Files of a run: read as they grow, and named with the line if they are damaged."""

import json
import re

import pytest

from launcher.__main__ import main
from launcher.base.diagnostics import SettingsError
from launcher.run_folder import records
from launcher.run_folder.records import GrowingFile
from tests.launcher.given import resolved
from tests.launcher.runs import ended, trained
from tests.privileges import reachable_folder, unreadable

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


def test_files_are_read_without_lines_of_other_programs_and_half_a_line_at_the_end(run):
    write_lines(run, {"note": "mine"}, TRAIN, EVAL)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "tr')
    records.check(run)
    assert list(records.metrics_lines(run)) == [TRAIN, EVAL]
    assert records.read_result(run)["status"] == "stopped"
    records.check(run / "missing")
    assert records.read_result(run / "missing") is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"kind": "train", ', "not JSON: "),
        ("3", "not an object of kind train or eval"),
        ({"kind": "other", "step": 1}, "not an object of kind train or eval"),
        ({"kind": "train"}, "it has no step"),
        ({"kind": "eval", "step": 1}, "it has no metrics"),
    ],
)
def test_a_damaged_line_or_result_is_named(run, line, reason):
    write_lines(run, TRAIN, line, EVAL)
    with pytest.raises(SettingsError) as error:
        records.check(run)
    [diagnostic] = error.value.diagnostics
    assert diagnostic.message.startswith(f"{run}/metrics.jsonl:2 is damaged: {reason}")
    assert diagnostic.fix == f"sed -i 2d {run}/metrics.jsonl  (removes the line)"
    write_lines(run, TRAIN)
    for content in ("{", "{}"):
        (run / "result.json").write_text(content)
        with pytest.raises(SettingsError, match=re.escape(f"{run}/result.json is damaged: ")):
            records.check(run)


def test_a_file_without_permission_is_named():
    with reachable_folder() as folder:
        run = ended(trained(folder / "run", resolved(), 10), "stopped", 10)
        write_lines(run, TRAIN)
        for name in ("result.json", "metrics.jsonl"):
            with unreadable(run / name), pytest.raises(SettingsError) as error:
                records.check(run)
            assert f"error: {run / name} cannot be read: Permission denied" in str(error.value)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("result.json", "resume run"),
        ("metrics.jsonl", "--model language:tiny --resume auto --out run"),
        ("result.json", "verify run"),
        ("metrics.jsonl", "export run --format safetensors"),
        ("result.json", "track run"),
        ("metrics.jsonl", "submit --resume run --dry-run"),
    ],
)
def test_every_command_names_the_damaged_file_once_and_writes_nothing(run, capsys, command, name):
    with (run / name).open("a") as file:
        file.write("3\n")
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    assert main(command.split()) == 2
    err = capsys.readouterr().err
    line = ":3" if name == "metrics.jsonl" else ""
    assert err.count(f"/{name}{line} is damaged: ") == 1 and err.count("error: ") == 1
    after = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))
    assert after == before


def extend(path, *numbers, end="\n"):
    with path.open("a") as file:
        file.write("".join(json.dumps({"n": number}) + end for number in numbers))


def numbers_of(file):
    return [line["n"] for line in file.new_lines()]


def test_each_complete_line_is_returned_once(tmp_path):
    path = tmp_path / "lines.jsonl"
    file = GrowingFile(path)
    assert numbers_of(file) == []
    extend(path, 1, 2)
    extend(path, 3, end="")
    assert numbers_of(file) == [1, 2]
    extend(path, end="")
    path.open("a").write("\n")
    extend(path, 4)
    assert numbers_of(file) == [3, 4]
    assert numbers_of(file) == []


def test_lines_are_returned_again_from_the_first_that_changed(tmp_path):
    path = tmp_path / "lines.jsonl"
    file = GrowingFile(path)
    extend(path, 1, 2, 3, 4)
    assert numbers_of(file) == [1, 2, 3, 4]
    path.write_text("")
    extend(path, 1, 2, 5)  # cut and written on
    assert numbers_of(file) == [5]
    path.write_text("")
    extend(path, 1, 3, 4, 5)  # longer than before
    assert numbers_of(file) == [3, 4, 5]
    other = tmp_path / "other"
    extend(other, 1, 7, 8)
    other.replace(path)
    assert numbers_of(file) == [7, 8]
    extend(path, 9)
    assert numbers_of(file) == [9]
