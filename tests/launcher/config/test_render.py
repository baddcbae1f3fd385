"""The settings that a run writes can be parsed again."""

import json

import pytest

from launcher.config import presets, settings_file
from launcher.config.render import (
    describe_overridden,
    render_origins,
    render_scalar,
    render_settings,
)
from launcher.config.settings_file import read_settings_file
from tests.launcher.given import LAPTOP, SERVER, resolved

MODES = [mode for mode in presets.modes() if mode != "staged"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("machine", "world_size"), [(LAPTOP, None), (LAPTOP, 4), (SERVER, None)])
@pytest.mark.parametrize("size", ["tiny", "full"])
def test_rendered_settings_resolve_to_the_same_settings(tmp_path, mode, machine, world_size, size):
    where = {"machine": machine, "world_size": world_size}
    first = resolved(model=f"language:{size}", mode=mode, **where)
    path = tmp_path / "settings.yaml"
    path.write_text(render_settings(first))
    again = resolved(model=None, configs=[path], **where)
    assert again.settings == first.settings
    assert again.batching == first.batching
    assert again.promises == first.promises
    assert again.warnings == []


def test_rendered_settings_keep_the_global_batch_for_another_world_size(tmp_path):
    first = resolved(model="language", nproc="2")
    path = tmp_path / "settings.yaml"
    path.write_text(render_settings(first))
    for nproc in ("1", "4"):
        again = resolved(model=None, configs=[path], machine=SERVER, nproc=nproc)
        assert again.batching.global_batch == 64


def test_every_setting_but_accumulation_is_rendered(tmp_path):
    run = resolved()
    path = tmp_path / "settings.yaml"
    path.write_text(render_settings(run))
    root = read_settings_file(path).value
    assert set(root) == {key.partition(".")[0] for key in run.values}
    assert "accumulation" not in root["train"].value


@pytest.mark.parametrize(
    "value",
    ["a b", "1e-6", "on", "true", "null", "", " x", "x ", "017", "a: b", "a #b", "#", "embedded:x",
     "%a", "5%", "2 epochs", "é", "a\nb", 'a"b', "-x", "~", "a:", "[x]", "a, b",
     1e-4, 3e-05, 0.1, 1.0, 3, -2, None, True, [0.9, "x, y"], {"at_most": 0.5}],
)  # fmt: skip
def test_each_rendered_value_is_parsed_to_the_same_value(value):
    assert settings_file.parse_yaml_value(f"{{k: {render_scalar(value)}}}") == {"k": value}
    assert settings_file.parse_yaml_value(f"k: {render_scalar(value)}") == {"k": value}


def test_origins_are_objects_of_value_origin_and_what_was_replaced():
    origins = json.loads(render_origins(resolved(lr="1e-3")))
    assert origins["optim.lr"]["value"] == 1e-3
    assert origins["optim.lr"]["origin"] == "--lr 1e-3"
    assert [old["layer"] for old in origins["optim.lr"]["replaced"]] == [
        "family",
        "family",
        "built-in",
    ]


def test_an_origin_has_the_change_made_by_a_mode():
    origins = json.loads(render_origins(resolved(model="abr", mode="fast")))
    assert origins["optim.lr"]["how"] == "1e-4 × 2"
    assert "how" not in origins["schedule.name"]


def test_an_equal_value_of_a_lower_layer_was_not_replaced():
    run = resolved(model="abr", mode="ultra-fast", machine=SERVER)
    lines = describe_overridden(run.values["train.micro_batch"])
    assert [line.split(" of ")[0] for line in lines] == ["32", "null"]
