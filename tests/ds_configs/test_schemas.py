"""The JSON schema of settings files matches the settings."""

import json

import pytest

from launcher.config import editor_schema, presets
from launcher.config.schema import setting_infos
from launcher.config.settings_file import node_value, read_settings_file
from models.catalog import FAMILIES

SCHEMA = editor_schema.repository_schema()
WORDS = ("originals", "other_tools")  # tables of words, not files of settings
SHIPPED = sorted(
    path for path in presets.FOLDER.rglob("*.yaml") if not {path.parent.name, path.stem} & {*WORDS}
)


def test_the_schema_in_the_tree_is_the_generated_one():
    written = (presets.FOLDER / editor_schema.FILE).read_text(encoding="utf-8")
    assert written == editor_schema.render(SCHEMA), "run: python -m launcher.config.editor_schema"
    assert json.loads(written) == SCHEMA


def errors(value, schema=SCHEMA, path=""):
    """Where `value` breaks `schema`, as far as the schema's keywords go."""
    if "$ref" in schema:
        return errors(value, at(schema["$ref"]), path)
    if "if" in schema:
        is_met = not errors(value, {"type": "object", "properties": {}, **schema["if"]}, path)
        return errors(value, schema["then" if is_met else "else"], path)
    if "anyOf" in schema:
        found = [errors(value, option, path) for option in schema["anyOf"]]
        return [] if [] in found else found[0]
    if "enum" in schema:
        return [] if value in schema["enum"] else [path]
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(is_a(value, kind) for kind in types):
        return [path]
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        found = [f"{path}.{key}" for key in schema.get("required", ()) if key not in value]
        found += [
            key for key in value if key not in schema.get("propertyNames", {"enum": value})["enum"]
        ]
        for key, child in value.items():
            if key in known or isinstance(other, dict):
                found += errors(child, known.get(key, other), f"{path}.{key}")
            elif other is False:
                found.append(f"{path}.{key}")
        return found
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return [path] if is_number and not low <= value <= high else []


def at(reference):
    """The part of the schema that a $ref names."""
    found = SCHEMA
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def is_a(value, kind):
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in ("integer", "number"):
        return isinstance(value, int if kind == "integer" else int | float) and value is not True
    return isinstance(value, types[kind])


def test_every_shipped_file_fits_the_schema_and_names_it():
    for path in SHIPPED:
        assert errors(node_value(read_settings_file(path))) == [], path
        first = path.read_text(encoding="utf-8").splitlines()[0]
        named = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / named).resolve() == presets.FOLDER / editor_schema.FILE, path


@pytest.mark.parametrize(
    "wrong",
    [
        {"sentence": "x", "optim": {"lr": "fast"}},
        {"sentence": "x", "optim": {"rate": 1}},
        {"sentence": "x", "train": {"epochs": {"times": 2}}},
        {"sentence": "x", "precision": "bf61"},
        {"sentence": "x", "promise": {"speed": {"at_most": 1}}},
        {"sentence": "x", "engine": {"name": "ddp"}},
        {"default": {"optim": {"rate": 1}}},
        {"default": {}, "sizes": {"tiny": {"modes": {"fast": {"optim": {"rate": 1}}}}}},
        {"optim": {"rate": 1}},
        {"optim": {"lr": {"scale": 2}}},
    ],
)
def test_an_invalid_file_does_not_fit_the_schema(wrong):
    assert errors(wrong)
    assert errors({"mode": "fast", "engine": {"name": "ddp"}, "optim": {"lr": 1e-3}}) == []


def test_the_schema_knows_every_setting_with_its_description():
    infos = [(family, *item) for family in FAMILIES for item in setting_infos(family).items()]
    for family, key, info in infos:
        node = SCHEMA["definitions"]["settings"]
        for part in key.split("."):
            node = node["properties"][part]
        text = json.dumps(node, ensure_ascii=False).replace('\\"', '"')
        assert info.description in text, (family, key)
