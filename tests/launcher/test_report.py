"""The command `report`, and the report at the end of a run."""

from __future__ import annotations

import json
import shutil

import pytest

from launcher.__main__ import main
from tests.launcher import saved_runs


def report(*args):
    return main(["report", *map(str, args)])


def test_the_report_is_written_into_the_run_folder(run, capsys):
    (run / "report.html").unlink()
    assert report(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "python -m launcher verify" in (run / "report.html").read_text()


def test_several_runs_share_a_report_here(run, tmp_path, monkeypatch, capsys):
    other = shutil.copytree(run, tmp_path / "other", symlinks=True)
    monkeypatch.chdir(tmp_path)
    assert report(run, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == "report.html"
    assert [(one["folder"], one["status"], one["steps"]) for one in found["runs"]] == [
        (str(run), "completed", 6),
        (str(other), "completed", 6),
    ]
    assert "2 runs" in (tmp_path / "report.html").read_text()


def test_stages_are_runs_of_one_report(run, tmp_path, capsys):
    whole = tmp_path / "whole"
    shutil.copytree(run, whole / "1-first", symlinks=True)
    stages = [{"name": name, "folder": f"{n}-{name}"} for n, name in ((1, "first"), (2, "next"))]
    (whole / "stages.json").write_text(json.dumps({"stages": stages}))
    assert report(whole, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(whole / "report.html")
    assert [one["folder"] for one in found["runs"]] == [str(whole / "1-first")]


def test_a_run_that_has_not_ended_has_a_report(run, capsys):
    (run / "result.json").unlink()
    assert report(run, "--out", run.parent / "now.html") == 0
    assert "not finished" in (run.parent / "now.html").read_text()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "error: nothing is not a run folder"),
        ("mine.html", "error: mine.html is not a run folder"),
    ],
)
def test_what_is_no_run_folder_is_refused(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    assert report(name) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]


def test_a_file_of_another_program_is_never_replaced(run, capsys):
    mine = run.parent / "mine.html"
    mine.write_text("mine")
    assert report(run, "--out", mine) == 2
    assert "was not written by this program" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert report(run, "--out", run) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_damaged_file_of_the_run_is_named(run, capsys):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("no JSON\n")
    before = (run / "report.html").read_bytes()
    assert report(run) == 2
    assert "metrics.jsonl:" in capsys.readouterr().err
    assert (run / "report.html").read_bytes() == before


def test_a_run_without_a_report_if_it_is_turned_off(tmp_path):
    run = saved_runs.train(tmp_path, **{"report.enabled": False, "train.max_steps": 2})
    assert (run / "result.json").exists()
    assert not (run / "report.html").exists()
