"""`explain`: each setting with its value, origin and overridden values."""

import json


def test_a_value_is_shown_with_its_origin_and_all_it_overrides(said, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("optim:\n  lr: 2e-4\n")
    lines = said("explain", "optim", "--config", str(mine), "--lr", "3e-4").splitlines()
    index = next(at for at, line in enumerate(lines) if line.startswith("  lr "))
    assert lines[index].split() == ["lr", "3e-4", "--lr", "3e-4"]
    assert lines[index + 1].split()[:3] == ["replaced", "2e-4", "of"]
    assert lines[index + 1].endswith("mine.yaml:2")
    assert "ds_configs/models/language.yaml" in lines[index + 2]
    assert lines[-1] != ""


def test_json_contains_value_origin_and_replaced_values_of_each_key(said):
    found = said("explain", "--json", "--lr", "3e-4")
    assert (found["optim.lr"]["value"], found["optim.lr"]["origin"]) == (3e-4, "--lr 3e-4")
    assert found["optim.lr"]["replaced"][-1]["origin"] == "built-in"
    assert {"value", "origin", "replaced"} <= set(found["train.seed"])
    [(_, facts)] = said("explain", "limits.check_every_s", "--json").items()
    assert facts["range"].startswith("above 0") and facts["unit"] == "seconds"
    assert facts["description"] == "Seconds between two measurements."
    schema = json.loads(said("explain", "--schema"))
    optim = schema["$defs"][schema["properties"]["optim"]["$ref"].rpartition("/")[2]]
    assert optim["additionalProperties"] is False
    assert optim["properties"]["lr"]["description"] == "Peak learning rate."
