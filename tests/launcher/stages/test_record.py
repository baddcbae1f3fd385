"""The result of the whole, from what each stage left."""

import json

from launcher.stages import record


def chain(folder, **stages):
    """A chain whose stages left these results; None: it left nothing."""
    record.save(folder, list(stages))
    made = record.load(folder)
    for name, result in stages.items():
        made.stages[name].mkdir()
        if result is not None:
            (made.stages[name] / "result.json").write_text(json.dumps(result))
    return made


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


def test_stages_are_found_by_the_folder_they_lie_in(tmp_path):
    record.save(tmp_path, ["lower", "upper"])
    found = record.load(tmp_path)
    assert {name: path.name for name, path in found.stages.items()} == {
        "lower": "1-lower",
        "upper": "2-upper",
    }


def test_a_folder_without_a_record_or_with_a_broken_one_holds_no_stages(tmp_path):
    assert record.load(tmp_path) is None
    (tmp_path / "stages.json").write_text('{"stages": 3}')
    assert record.load(tmp_path) is None


def test_the_whole_adds_up_what_took_time_and_takes_the_largest_of_what_took_room(tmp_path):
    made = chain(tmp_path, lower=result(parameters=10, host=300), upper=result(parameters=30))
    told = record.write(made, {"lower": 0, "upper": 0})
    assert told == json.loads((tmp_path / "result.json").read_text())
    assert (told["status"], told["steps"], told["wall_s"]) == ("completed", 8, 4.0)
    assert (told["parameters"], told["peak_memory_bytes"]) == (30, {"device": None, "host": 300})
    assert told["best"]["value"] == 3.0 and told["engine"] == "ddp"


def test_each_stage_is_told_with_its_own_numbers(tmp_path):
    made = chain(tmp_path, lower=result(device=7), upper=None)
    lower, upper = record.write(made, {"lower": 0})["stages"]
    assert (lower["folder"], lower["status"], lower["exit_code"]) == ("1-lower", "completed", 0)
    assert lower["peak_memory_bytes"] == {"device": 7, "host": 100}
    assert (upper["status"], upper["exit_code"], upper["parameters"]) == ("waiting", None, None)


def test_the_whole_is_completed_only_with_its_last_stage(tmp_path):
    made = chain(tmp_path, lower=result(), upper=None)
    assert record.write(made, {"lower": 0})["status"] == "stopped"


def test_a_stage_that_failed_fails_the_whole_also_where_it_left_nothing(tmp_path):
    made = chain(tmp_path, lower=None, upper=None)
    told = record.write(made, {"lower": 1})
    assert (told["status"], told["stages"][0]["status"]) == ("failed", "failed")
    assert told["parameters"] is None


def test_an_earlier_result_does_not_hide_how_a_stage_ended_now(tmp_path):
    made = chain(tmp_path, lower=result("stopped"))
    assert record.write(made, {"lower": 75})["stages"][0]["status"] == "stopped"
    assert record.write(made, {"lower": 1})["stages"][0]["status"] == "failed"
