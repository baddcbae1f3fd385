"""`explain`: each setting with its value, origin and overridden values."""

import json
from functools import partial

import pytest


@pytest.fixture
def explain(said):
    return partial(said, "explain")


def test_a_value_is_shown_with_its_origin_and_all_it_overrides(explain, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("optim:\n  lr: 2e-4\n")
    lines = explain("optim", "--config", str(mine), "--lr", "3e-4").splitlines()
    index = next(at for at, line in enumerate(lines) if line.startswith("  lr "))
    assert lines[index].split() == ["lr", "3e-4", "--lr", "3e-4"]
    assert lines[index + 1].split()[:3] == ["replaced", "2e-4", "of"]
    assert lines[index + 1].endswith("mine.yaml:2")
    assert "ds_configs/models/language.yaml" in lines[index + 2]
    assert lines[-1] != ""


def test_a_key_is_shown_with_its_description_range_and_unit(explain):
    output = explain("limits.check_every_s", "--set", "limits.check_every_s=5")
    assert output.splitlines()[:3] == [
        "limits.check_every_s = 5",
        "  Seconds between two measurements.",
        "  where      --set limits.check_every_s=5",
    ]
    assert "above 0" in output
    assert "  unit       seconds" in output
    assert "fp32, tf32, bf16, fp16" in explain("precision")


def test_json_contains_value_origin_and_replaced_values_of_each_key(explain):
    found = explain("--json", "--lr", "3e-4")
    assert (found["optim.lr"]["value"], found["optim.lr"]["origin"]) == (3e-4, "--lr 3e-4")
    assert found["optim.lr"]["replaced"][-1]["origin"] == "built-in"
    assert {"value", "origin", "replaced"} <= set(found["train.seed"])
    [(key, facts)] = explain("train.epochs", "--json").items()
    assert (key, facts["range"]) == ("train.epochs", "above 0, at most 1000000")
    assert facts["description"].startswith("Epochs")
    schema = json.loads(explain("--schema"))
    optim = schema["$defs"][schema["properties"]["optim"]["$ref"].rpartition("/")[2]]
    assert optim["additionalProperties"] is False
    assert optim["properties"]["lr"]["description"] == "Peak learning rate."
