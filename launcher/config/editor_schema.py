"""JSON schemas with which editors complete and check settings files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.config import presets
from launcher.config.schema import FIRST_RUN, sections, setting_infos, settings_class
from models.catalog import FAMILIES

Schema = dict[str, Any]
_DRAFT = "http://json-schema.org/draft-07/schema#"
_OURS = {"title", "allowed", "only_if", "unless", "unit"}
"""What pydantic adds to a schema from names and from our fields."""
FILE = "settings.schema.json"
"""The file in ds_configs that editors read in a clone."""
_CHOICES = {"mode", "model/properties/family", "engine/properties/name", "engine/properties/nproc"}
"""Settings that decide which shipped files are read, and so cannot be in one."""
_CHANGE: Schema = {
    "type": "object",
    "description": "A change to the family's default.",
    "properties": {
        "scale": {"type": "number", "description": "Times this; whole numbers are rounded."},
        "at_least": {"type": "number", "description": "Not less than this."},
        "at_most": {"type": "number", "description": "Not more than this."},
        "smaller_of": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The first of these sizes that is smaller than the default.",
        },
    },
    "additionalProperties": False,
    "minProperties": 1,
}


def settings(custom: str | None = None) -> Schema:
    """The schema of a user's settings file, for all families and a `custom` task."""
    families = dict.fromkeys([*FAMILIES, custom or FIRST_RUN[0]])
    schema = _merged([_schema(family) for family in families])
    named = [name for name, child in schema["properties"].items() if _is_section(child)]
    pattern = rf"^({'|'.join(sorted(named))})\."
    schema["patternProperties"] = {pattern: {"description": "A dotted key."}}
    return {"$schema": _DRAFT, "title": "Settings", **schema}


def _schema(family: str) -> Schema:
    """The schema that pydantic gives for a family, without references."""
    root = settings_class(family).model_json_schema()
    infos, known_sections = setting_infos(family), {"", *sections(family)}

    def inlined(node: Any, key: str) -> Any:
        if isinstance(node, list):
            return [inlined(item, key) for item in node]
        if isinstance(node, str):
            return node.replace("\n", " ")
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rpartition("/")[2]]
        drop = _OURS | {"properties"} | ({"required"} if key in known_sections else set())
        schema = {name: inlined(child, key) for name, child in node.items() if name not in drop}
        if "properties" in node:
            prefix = f"{key}." if key else ""
            children = node["properties"].items()
            schema["properties"] = {n: inlined(child, f"{prefix}{n}") for n, child in children}
        choices = infos[key].allowed if key in infos else None
        if isinstance(choices, tuple) and "description" in node:
            schema = {"description": schema["description"], "default": infos[key].default}
            schema["enum"] = [*choices, *([None] if infos[key].nullable else [])]
        return schema

    schema: Schema = inlined({k: child for k, child in root.items() if k != "$defs"}, "")
    model, download = (schema["properties"][name]["properties"] for name in ("model", "download"))
    task = {"type": "string", "pattern": ":"}
    model["family"] = {"anyOf": [{"enum": [*FAMILIES]}, task]} | {
        "description": infos["model.family"].description
    }
    files = download["files"]
    files["items"] = {"anyOf": [{"type": "string"}, files["items"]]}
    return schema


def _merged(schemas: Sequence[Schema]) -> Schema:
    """What one of the schemas allows."""
    unique = [schema for n, schema in enumerate(schemas) if schema not in schemas[:n]]
    if len(unique) == 1:
        return unique[0]
    if not all(_is_section(schema) for schema in unique):
        return {"anyOf": unique}
    trees = [schema["properties"] for schema in unique]
    names = dict.fromkeys(name for tree in trees for name in tree)
    return _object({n: _merged([tree[n] for tree in trees if n in tree]) for n in names})


def _is_section(schema: Schema) -> bool:
    return schema.get("additionalProperties") is False


def repository_schema() -> Schema:
    """One schema for settings files, and for the shipped files of modes and models.

    A file with `sentence` is a mode or a limits profile; one with `default` is a model's file.
    """
    of_settings = settings()
    del of_settings["$schema"], of_settings["title"]
    changes = _changes(of_settings, "#/definitions/settings")
    block = {"$ref": "#/definitions/changes"}
    by_name = {"type": "object", "additionalProperties": block}
    inner = {"modes": _object(dict.fromkeys(presets.modes(), block)), "stages": by_name}
    sections = {
        name: {"$ref": f"#/definitions/changes/properties/{name}"} for name in changes["properties"]
    }
    sentence = {"type": "string", "description": "The line of `list modes`."}
    size = _object({**sections, **inner})
    sizes = {"type": "object", "additionalProperties": {"$ref": "#/definitions/size"}}
    return {
        "$schema": _DRAFT,
        "title": "Settings, modes and model files",
        "if": {"required": ["sentence"]},
        "then": {"$ref": "#/definitions/mode"},
        "else": {
            "if": {"required": ["default"]},
            "then": {"$ref": "#/definitions/model_file"},
            "else": {"$ref": "#/definitions/settings"},
        },
        "definitions": {
            "settings": of_settings,
            "change": _CHANGE,
            "changes": changes,
            "size": size,
            "mode": _object({"sentence": sentence, **sections}) | {"required": ["sentence"]},
            "model_file": _object({"default": block, "given": by_name, "sizes": sizes, **inner}),
        },
    }


def render(schema: Schema) -> str:
    """`schema` as JSON."""
    return json.dumps(schema, ensure_ascii=False, indent=1) + "\n"


def write() -> None:
    """Write ds_configs/settings.schema.json."""
    (presets.FOLDER / FILE).write_text(render(repository_schema()), encoding="utf-8")


def _changes(tree: Schema, path: str) -> Schema:
    """The settings of a shipped file: each a value, or a change to the default."""
    properties: Schema = {}
    for name, child in tree["properties"].items():
        pointer = f"{path}/properties/{name}"
        if pointer.removeprefix("#/definitions/settings/properties/") in _CHOICES:
            continue
        if name == "promise":
            properties[name] = {"$ref": pointer}
        elif _is_section(child):
            properties[name] = _changes(child, pointer)
        else:
            properties[name] = {"anyOf": [{"$ref": pointer}, {"$ref": "#/definitions/change"}]}
    return _object(properties)


def _object(properties: Mapping[str, Any]) -> Schema:
    """An object that allows only `properties`."""
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


if __name__ == "__main__":
    write()
