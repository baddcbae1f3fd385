"""The result of a pipeline from those of its stages."""

import json

import pytest

from gearshift.launcher.run_folder.reader import RunReader
from gearshift.launcher.stages.pipeline import save_result
from tests.launcher.stages.conftest import saved_stages


def written(folder, codes, **stages):
    """The result of a pipeline with these results of its stages; None: no result."""
    saved_stages(folder, *stages)
    folders = RunReader(folder).stages()
    for name, result in stages.items():
        folders[name].mkdir()
        if result is not None:
            (folders[name] / "result.json").write_text(json.dumps(result))
    return save_result(folder, folders, codes)


def result(status="completed", steps=4, parameters=10, device=None, host=100, **more):
    found = {"status": status, "steps": steps, "epochs": 1.0, "wall_s": 2.0, "engine": "ddp"}
    found |= {"parameters": parameters, "peak_memory_bytes": {"device": device, "host": host}}
    best = {"metric": "val_loss", "value": parameters / 10, "step": steps}
    return found | {"best": best, "samples_per_s": 3.0} | more


def test_the_result_adds_times_and_takes_the_largest_memory(tmp_path):
    codes = {"lower": 0, "upper": 0}
    content = written(
        tmp_path, codes, lower=result(parameters=10, host=300), upper=result(parameters=30)
    )
    assert content == json.loads((tmp_path / "result.json").read_text())
    assert (content["status"], content["steps"], content["wall_s"]) == ("completed", 8, 4.0)
    assert content["parameters"] == 30
    assert content["peak_memory_bytes"] == {"device": None, "host": 300}
    assert content["best"]["value"] == 3.0 and content["engine"] == "ddp"


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
    content = written(tmp_path, {"lower": code}, lower=lower, upper=None)
    assert (content["status"], content["stages"][0]["status"]) == (whole, stage)
