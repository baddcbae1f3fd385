"""The command `report`, and the report at the end of a run."""

import json
import shutil

from launcher.__main__ import main


def report(*args):
    return main(["report", *map(str, args)])


def test_the_report_is_written_into_the_run_folder_or_elsewhere(run, capsys):
    (run / "report.html").unlink()
    assert report(run) == 0
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"
    assert "python -m launcher verify" in (run / "report.html").read_text()
    (run / "result.json").unlink()
    assert report(run, "--out", run.parent / "now.html") == 0
    assert "not finished" in (run.parent / "now.html").read_text()


def test_several_runs_share_a_report_here_and_stages_one(run, tmp_path, monkeypatch, capsys):
    whole = tmp_path / "whole"
    other = shutil.copytree(run, whole / "1-first", symlinks=True)
    monkeypatch.chdir(tmp_path)
    assert report(run, other, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == "report.html"
    assert [(one["folder"], one["status"], one["steps"]) for one in found["runs"]] == [
        (str(run), "completed", 6),
        (str(other), "completed", 6),
    ]
    assert "2 runs" in (tmp_path / "report.html").read_text()
    stages = [{"name": name, "folder": f"{n}-{name}"} for n, name in ((1, "first"), (2, "next"))]
    (whole / "stages.json").write_text(json.dumps({"stages": stages}))
    assert report(whole, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(whole / "report.html")
    assert [one["folder"] for one in found["runs"]] == [str(other)]


def test_what_is_no_run_folder_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("mine")
    for name in ("nothing", "mine.html"):
        assert report(name) == 2
        assert f"error: {name} is not a run folder" in capsys.readouterr().err
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
