"""The result of a pipeline from those of its stages."""

import json

from launcher.stages import record


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
    return {
        "status": status,
        "steps": steps,
        "epochs": 1.0,
        "wall_s": 2.0,
        "parameters": parameters,
        "peak_memory_bytes": {"device": device, "host": host},
        "best": {"metric": "val_loss", "value": parameters / 10, "step": steps},
        "samples_per_s": 3.0,
        "engine": "ddp",
        **more,
    }


def test_stages_are_found_by_their_folder(tmp_path):
    record.save(tmp_path, ["lower", "upper"])
    found = record.load(tmp_path)
    assert {name: path.name for name, path in found.stages.items()} == {
        "lower": "1-lower",
        "upper": "2-upper",
    }


def test_a_folder_with_no_or_a_broken_record_holds_no_stages(tmp_path):
    assert record.load(tmp_path) is None
    (tmp_path / "stages.json").write_text('{"stages": 3}')
    assert record.load(tmp_path) is None


def test_the_result_adds_times_and_takes_the_largest_memory(tmp_path):
    loaded = pipeline(tmp_path, lower=result(parameters=10, host=300), upper=result(parameters=30))
    content = record.write(loaded, {"lower": 0, "upper": 0})
    assert content == json.loads((tmp_path / "result.json").read_text())
    assert (content["status"], content["steps"], content["wall_s"]) == ("completed", 8, 4.0)
    assert (content["parameters"], content["peak_memory_bytes"]) == (
        30,
        {"device": None, "host": 300},
    )
    assert content["best"]["value"] == 3.0 and content["engine"] == "ddp"


def test_each_stage_keeps_its_own_numbers(tmp_path):
    loaded = pipeline(tmp_path, lower=result(device=7), upper=None)
    lower, upper = record.write(loaded, {"lower": 0})["stages"]
    assert (lower["folder"], lower["status"], lower["exit_code"]) == ("1-lower", "completed", 0)
    assert lower["peak_memory_bytes"] == {"device": 7, "host": 100}
    assert (upper["status"], upper["exit_code"], upper["parameters"]) == ("waiting", None, None)


def test_a_pipeline_completes_with_its_last_stage(tmp_path):
    loaded = pipeline(tmp_path, lower=result(), upper=None)
    assert record.write(loaded, {"lower": 0})["status"] == "stopped"


def test_a_failed_stage_fails_the_pipeline_even_without_files(tmp_path):
    loaded = pipeline(tmp_path, lower=None, upper=None)
    content = record.write(loaded, {"lower": 1})
    assert (content["status"], content["stages"][0]["status"]) == ("failed", "failed")
    assert content["parameters"] is None


def test_the_exit_code_wins_over_an_earlier_result(tmp_path):
    loaded = pipeline(tmp_path, lower=result("stopped"))
    assert record.write(loaded, {"lower": 75})["stages"][0]["status"] == "stopped"
    assert record.write(loaded, {"lower": 1})["stages"][0]["status"] == "failed"
