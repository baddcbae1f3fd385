"""The settings that a run writes can be parsed again."""

import json
from itertools import cycle, product

from gearshift.launcher.config import presets, settings_file
from gearshift.launcher.config.render import (
    describe_overridden,
    render_origins,
    render_scalar,
    render_settings,
)
from gearshift.launcher.config.settings_file import read_values
from tests.launcher.given import LAPTOP, SERVER, resolved

MODES = [mode for mode in presets.modes() if mode != "staged"]


def test_rendered_settings_resolve_to_the_same_settings(tmp_path):
    path = tmp_path / "settings.yaml"
    places = ((LAPTOP, None), (LAPTOP, 4), (SERVER, None))
    for (mode, (machine, world_size)), size in zip(
        product(MODES, places), cycle(["tiny", "full"]), strict=False
    ):
        where = {"machine": machine, "world_size": world_size}
        first = resolved(model=f"language:{size}", mode=mode, **where)
        path.write_text(render_settings(first))
        again = resolved(model=None, configs=[path], **where)
        assert again.settings == first.settings, (mode, where)
        assert again.batching == first.batching
        assert (again.promises, again.warnings) == (first.promises, [])


def test_rendered_settings_keep_the_global_batch_for_another_world_size(tmp_path):
    first, path = resolved(model="language", nproc="2"), tmp_path / "settings.yaml"
    path.write_text(render_settings(first))
    assert set(read_values(path)) == {*first.values} - {"train.accumulation"}
    for nproc in ("1", "4"):
        again = resolved(model=None, configs=[path], machine=SERVER, nproc=nproc)
        assert again.batching.global_batch == 64


def test_each_rendered_value_is_parsed_to_the_same_value():
    texts = ["a b", "1e-6", "on", "true", "null", "", " x", "x ", "017", "a: b", "a #b", "#"]
    texts += ["embedded:x", "%a", "5%", "2 epochs", "é", "a\nb", 'a"b', "-x", "~", "a:", "[x]"]
    others = [1e-4, 3e-05, 0.1, 1.0, 3, -2, None, True, [0.9, "x, y"], {"at_most": 0.5}]
    for value in (*texts, "a, b", *others):
        assert settings_file.parse_yaml_value(f"{{k: {render_scalar(value)}}}") == {"k": value}
        assert settings_file.parse_yaml_value(f"k: {render_scalar(value)}") == {"k": value}


def test_origins_are_objects_of_value_origin_and_what_was_replaced():
    origins = json.loads(render_origins(resolved(lr="1e-3")))
    found = origins["optim.lr"]
    assert (found["value"], found["origin"]) == (1e-3, "--lr 1e-3")
    assert [old["layer"] for old in found["replaced"]] == ["family", "family", "built-in"]
    origins = json.loads(render_origins(resolved(model="abr", mode="fast")))
    assert origins["optim.lr"]["how"] == "{scale: 2} of 1e-4"
    assert "how" not in origins["schedule.name"]
    # An equal value of a lower layer was not replaced.
    run = resolved(model="abr", mode="ultra-fast", machine=SERVER)
    lines = describe_overridden(run.values["train.micro_batch"])
    assert [line.split(" of ")[0] for line in lines] == ["32", "null"]
