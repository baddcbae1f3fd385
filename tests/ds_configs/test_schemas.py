"""Editors complete and check the settings files by what the program itself knows."""

import json

import pytest

from launcher.config import editor_schema, presets
from launcher.config.schema import setting_infos
from launcher.config.settings_file import node_value, read_settings_file
from models.catalog import FAMILIES

FILES = editor_schema.files()


@pytest.mark.parametrize("path", FILES)
def test_the_file_in_the_tree_is_what_the_settings_give(path):
    there = (presets.FOLDER / path).read_text(encoding="utf-8")
    assert there == FILES[path], "run: python -m launcher.config.editor_schema"


def diagnostics(schema, value, root, place=""):
    """Where `value` breaks `schema`, of the words that our schemas use."""
    if "$ref" in schema:
        return diagnostics(root["definitions"][schema["$ref"].split("/")[-1]], value, root, place)
    if "anyOf" in schema:
        found = [diagnostics(option, value, root, place) for option in schema["anyOf"]]
        return [] if [] in found else found[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [place]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(is_a(value, kind) for kind in types):
        return [place]
    if isinstance(value, dict):
        known = schema["properties"]
        inner = [
            f
            for k in known
            if k in value
            for f in diagnostics(known[k], value[k], root, f"{place}.{k}")
        ]
        missing = [f"{place}.{k}" for k in schema.get("required", ()) if k not in value]
        return inner + missing + [f"{place}.{k}" for k in value if k not in known]
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    return (
        []
        if value is None or isinstance(value, str | list | bool) or low <= value <= high
        else [place]
    )


def is_a(value, kind):
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else int | float) and value is not True
    return isinstance(value, types[kind])


@pytest.mark.parametrize("mode", presets.modes())
def test_every_mode_fits_the_schema_of_modes(mode):
    schema = editor_schema.mode()
    assert (
        diagnostics(
            schema,
            node_value(read_settings_file(presets.FOLDER / "modes" / f"{mode}.yaml")),
            schema,
        )
        == []
    )


def test_what_holds_for_tasks_of_ones_own_fits_its_schema():
    schema = editor_schema.own()
    assert (
        diagnostics(schema, node_value(read_settings_file(presets.FOLDER / "own.yaml")), schema)
        == []
    )
    assert diagnostics(schema, {"default": {"model": {"size": "tiny"}}}, schema)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_fits_its_schema(family):
    schema = editor_schema.family(family)
    assert (
        diagnostics(
            schema,
            node_value(read_settings_file(presets.FOLDER / "models" / f"{family}.yaml")),
            schema,
        )
        == []
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"sentence": "x", "optim": {"lr": "fast"}},
        {"sentence": "x", "optim": {"rate": 1}},
        {"sentence": "x", "train": {"epochs": {"times": 2}}},
        {"sentence": "x", "precision": "bf61"},
        {"sentence": "x", "promise": {"speed": {"at_most": 1}}},
        {"optim": {"lr": 1}},
    ],
)
def test_what_a_mode_may_not_say_does_not_fit(wrong):
    schema = editor_schema.mode()
    assert diagnostics(schema, wrong, schema)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_schema_for_people_knows_every_setting_with_its_sentence(family):
    schema = editor_schema.settings()
    for key, leaf in setting_infos(family).items():
        node = schema
        for part in key.split("."):
            node = node["properties"][part]
        assert leaf.description in json.dumps(node, ensure_ascii=False).replace('\\"', '"')
