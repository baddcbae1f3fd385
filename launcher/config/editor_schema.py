"""JSON schemas with which editors complete and check settings files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from launcher.config import presets
from launcher.config.schema import Bounds, Measure, SettingInfo, setting_infos
from models.catalog import FAMILIES
from training.settings import nested

Schema = dict[str, Any]
_DRAFT = "http://json-schema.org/draft-07/schema#"
_TYPES = {
    "whole number": "integer",
    "number": "number",
    "text": "string",
    "true or false": "boolean",
}
FILE = "settings.schema.json"
"""The file in ds_configs that editors read in a clone."""
_CHOICES = {"mode", "model/properties/family", "engine/properties/name", "engine/properties/nproc"}
"""Settings that decide which shipped files are read, and so cannot be in one."""
_NESTED = {"properties", "definitions", "if"}
_SCHEMA_KEYS = ("type", "anyOf", "$ref", "description")
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
    merged: dict[str, list[Schema]] = {}
    families = [*FAMILIES] if custom is None else [*dict.fromkeys((*FAMILIES, custom))]
    for family in families:
        for key, info in setting_infos(family).items():
            known = merged.setdefault(key, [])
            if (schema := _setting(info)) not in known:
                known.append(schema)
    tree = {
        key: schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        for key, schemas in merged.items()
    }
    schema = _object(nested(tree))
    sections = "|".join(sorted({key.partition(".")[0] for key in tree if "." in key}))
    schema["patternProperties"] = {rf"^({sections})\.": {"description": "A dotted key."}}
    return {"$schema": _DRAFT, "title": "Settings", **schema}


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
    keys = {"type": "array", "items": {"type": "string"}}
    by_measure = {"type": "object", "additionalProperties": keys}
    promises = _object(dict.fromkeys(presets.modes(), by_measure))
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
            "model_file": _object(
                {
                    **{"default": block, "given": by_name, "sizes": sizes, **inner},
                    "promises": promises,
                }
            ),
        },
    }


def render(schema: Schema) -> str:
    """`schema` as JSON with one setting a line."""
    return "".join(f"{line}\n" for line in _lines(schema, "", "", ""))


def write() -> None:
    """Write ds_configs/settings.schema.json."""
    (presets.FOLDER / FILE).write_text(render(repository_schema()), encoding="utf-8")


def _lines(node: Schema, name: str, indent: str, end: str) -> Iterator[str]:
    head = f"{indent}{json.dumps(name)}: " if name else indent
    if not _NESTED & node.keys() and not any(
        isinstance(child, dict) and _NESTED & child.keys() for child in node.values()
    ):
        yield head + json.dumps(node, ensure_ascii=False) + end
        return
    yield head + "{"
    for number, (key, child) in enumerate(node.items(), start=1):
        comma = "," if number < len(node) else ""
        if isinstance(child, dict):
            yield from _lines(child, key, f"{indent} ", comma)
        else:
            yield f"{indent} {json.dumps(key)}: {json.dumps(child, ensure_ascii=False)}{comma}"
    yield f"{indent}}}{end}"


def _changes(tree: Schema, path: str) -> Schema:
    """The settings of a shipped file: each a value, or a change to the default."""
    properties: Schema = {}
    for name, child in tree["properties"].items():
        pointer = f"{path}/properties/{name}"
        if pointer.removeprefix("#/definitions/settings/properties/") in _CHOICES:
            continue
        if name == "promise":
            properties[name] = {"$ref": pointer}
        elif child.get("additionalProperties") is False:
            properties[name] = _changes(child, pointer)
        else:
            properties[name] = {"anyOf": [{"$ref": pointer}, {"$ref": "#/definitions/change"}]}
    return _object(properties)


def _setting(info: SettingInfo) -> Schema:
    schema: Schema = {"description": info.description, "default": info.default}
    if info.key == "model.family":
        return schema | {"anyOf": [{"enum": list(FAMILIES)}, {"type": "string", "pattern": ":"}]}
    if isinstance(info.allowed, tuple):
        return schema | {"enum": [*info.allowed, None] if info.nullable else list(info.allowed)}
    if info.key == "promise":
        bounds = {
            name: {"type": "number", "description": field.description}
            for name, field in Bounds.model_fields.items()
        }
        return schema | _object(dict.fromkeys(get_args(Measure), _object(bounds)))
    if info.key == "download.files":
        return schema | {"type": "array", "items": {"anyOf": [{"type": "string"}, _file(info)]}}
    if info.type.startswith("list of "):
        item = info.type.removeprefix("list of ").removesuffix("s")
        return schema | {"type": "array", "items": {"type": _TYPES[item]}}
    types = ["integer", "string"] if info.type == "length" else [_TYPES[info.type]]
    types += ["null"] if info.nullable else []
    schema["type"] = types if len(types) > 1 else types[0]
    names = {
        "ge": "minimum",
        "gt": "exclusiveMinimum",
        "le": "maximum",
        "lt": "exclusiveMaximum",
    }
    return schema | {names[name]: bound for name, bound in info.bounds.items()}


def _file(files: SettingInfo) -> Schema:
    """One file to fetch, in its long form."""
    keys = {name: _setting(info) for name, info in files.items.items()}
    del keys["url"]["default"]
    return _object(keys) | {"required": ["url"]}


def _object(properties: Mapping[str, Any]) -> Schema:
    """An object that allows only `properties`; a tree of them for nested mappings."""
    return {
        "type": "object",
        "properties": {
            name: child if _is_schema(child) else _object(child)
            for name, child in properties.items()
        },
        "additionalProperties": False,
    }


def _is_schema(child: Mapping[str, Any]) -> bool:
    return any(isinstance(child.get(word), str | list) for word in _SCHEMA_KEYS)


if __name__ == "__main__":
    write()
