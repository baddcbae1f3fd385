"""The result of a pipeline from those of its stages, and the lines that it ends with."""

import json

import pytest

from launcher.base import exit_codes
from launcher.run.execute import FinishedRun
from launcher.run.failures import RankReport
from launcher.stages import record, summary


def pipeline(folder, **stages):
    """A pipeline with these results of its stages; None: no result."""
    record.save(folder, list(stages))
    loaded = record.load(folder)
    for name, result in stages.items():
        loaded.stages[name].mkdir()
        if result is not None:
            (loaded.stages[name] / "result.json").write_text(json.dumps(result))
    return loaded


def result(status="completed", steps=4, parameters=10, device=None, host=100, **more):
    found = {"status": status, "steps": steps, "epochs": 1.0, "wall_s": 2.0, "engine": "ddp"}
    found |= {"parameters": parameters, "peak_memory_bytes": {"device": device, "host": host}}
    best = {"metric": "val_loss", "value": parameters / 10, "step": steps}
    return found | {"best": best, "samples_per_s": 3.0} | more


def test_stages_are_found_by_their_folder_unless_it_has_no_or_a_broken_record(tmp_path):
    assert record.load(tmp_path) is None
    record.save(tmp_path, ["lower", "upper"])
    found = record.load(tmp_path)
    assert [(name, path.name) for name, path in found.stages.items()] == [
        *(("lower", "1-lower"), ("upper", "2-upper"))
    ]
    (tmp_path / "stages.json").write_text('{"stages": 3}')
    assert record.load(tmp_path) is None


def test_the_result_adds_times_and_takes_the_largest_memory(tmp_path):
    loaded = pipeline(tmp_path, lower=result(parameters=10, host=300), upper=result(parameters=30))
    content = record.write(loaded, {"lower": 0, "upper": 0})
    assert content == json.loads((tmp_path / "result.json").read_text())
    assert (content["status"], content["steps"], content["wall_s"]) == ("completed", 8, 4.0)
    assert content["parameters"] == 30
    assert content["peak_memory_bytes"] == {"device": None, "host": 300}
    assert content["best"]["value"] == 3.0 and content["engine"] == "ddp"


def test_each_stage_keeps_its_own_numbers(tmp_path):
    loaded = pipeline(tmp_path, lower=result(device=7), upper=None)
    lower, upper = record.write(loaded, {"lower": 0})["stages"]
    assert (lower["folder"], lower["status"], lower["exit_code"]) == ("1-lower", "completed", 0)
    assert lower["peak_memory_bytes"] == {"device": 7, "host": 100}
    assert (upper["status"], upper["exit_code"], upper["parameters"]) == ("waiting", None, None)


@pytest.mark.parametrize(
    ("lower", "code", "whole", "stage"),
    [
        (result(), 0, "stopped", "completed"),  # the upper stage is left
        (None, 1, "failed", "failed"),
        (result("stopped"), 75, "stopped", "stopped"),
        (result("stopped"), 1, "failed", "failed"),
    ],
)
def test_the_exit_code_of_a_stage_wins_over_its_result(tmp_path, lower, code, whole, stage):
    content = record.write(pipeline(tmp_path, lower=lower, upper=None), {"lower": code})
    assert (content["status"], content["stages"][0]["status"]) == (whole, stage)


def lines(folder, **stages):
    loaded = pipeline(folder, **stages)
    report = RankReport("ended", exit_codes.DONE, 0, "here", 0.0)
    return summary.summary(FinishedRun(report, folder, record.summarize(loaded))).splitlines()
