"""The command `report`, and the report at the end of a run."""

import json
import shutil

from gearshift.launcher.run_folder.run_folder import SPLIT
from gearshift.models.common.split import SPLIT_FILE


def test_the_report_is_written_into_the_run_folder_or_elsewhere(run, said):
    (run / "report.html").unlink()
    assert said("report", run) == f"{run / 'report.html'}\n"
    assert "python -m launcher verify" in (run / "report.html").read_text()
    (run / "result.json").unlink()
    said("report", run, "--out", run.parent / "now.html")
    assert "not finished" in (run.parent / "now.html").read_text()


def test_several_runs_share_a_report_here_and_stages_one(run, tmp_path, monkeypatch, said):
    whole = tmp_path / "whole"
    other = shutil.copytree(run, whole / "1-first", symlinks=True)
    monkeypatch.chdir(tmp_path)
    found = said("report", run, other, "--json")
    assert found["report"] == "report.html"
    assert [(one["folder"], one["status"], one["steps"]) for one in found["runs"]] == [
        (str(run), "completed", 6),
        (str(other), "completed", 6),
    ]
    assert "2 runs" in (tmp_path / "report.html").read_text()
    stages = [{"name": name, "folder": f"{n}-{name}"} for n, name in ((1, "first"), (2, "next"))]
    (whole / "stages.json").write_text(json.dumps({"stages": stages}))
    found = said("report", whole, "--json")
    assert found["report"] == str(whole / "report.html")
    assert [one["folder"] for one in found["runs"]] == [str(other)]


def test_scores_of_other_validation_data_are_marked(run, tmp_path, monkeypatch, said):
    assert SPLIT == SPLIT_FILE
    monkeypatch.chdir(tmp_path)
    same, other, part = (
        shutil.copytree(run, tmp_path / name, symlinks=True) for name in ("same", "other", "part")
    )
    found = said("report", run, same, "--json")
    assert [one["validation"] for one in found["runs"]] == [None, None]
    assert found["warning"] is None and "different" not in said("report", run, same)

    split = json.loads((other / SPLIT).read_text())
    split["val"], split["train"] = split["train"][:1], split["val"]
    (other / SPLIT).write_text(json.dumps(split))
    result = json.loads((part / "result.json").read_text())
    result["best"] |= {"samples": 1}
    (part / "result.json").write_text(json.dumps(result))
    found = said("report", run, other, same, part, "--json")
    assert [one["validation"] for one in found["runs"]] == ["A", "B", "A", "C"]
    assert found["warning"] in said("report", run, other, same, part)
    page = (tmp_path / "report.html").read_text()
    assert page.count("(data A)") == 2 and "(data B)" in page and "(data C)" in page


def test_a_file_of_another_program_is_never_replaced(run, said):
    mine = run.parent / "mine.html"
    mine.write_text("mine")
    assert "was not written by this program" in said("report", run, "--out", mine, code=2)
    assert mine.read_text() == "mine"
    assert "is a folder" in said("report", run, "--out", run, code=2)
