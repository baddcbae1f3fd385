"""JSON schemas, by which editors complete and check settings files, and the shipped YAML."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, get_args

from launcher.config import presets
from launcher.config.schema import Bounds, Measure, SettingInfo, config_of, setting_infos
from models.catalog import FAMILIES, stages_of
from training.settings import nested

Schema = dict[str, Any]
_DRAFT = "http://json-schema.org/draft-07/schema#"
_TYPES = {
    "whole number": "integer",
    "number": "number",
    "text": "string",
    "true or false": "boolean",
}
_SCHEMA_WORDS = ("type", "anyOf", "$ref", "description")
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


def settings(own: str | None = None) -> Schema:
    """The schema of a person's settings file, for all families, and a task of their `own`."""
    merged: dict[str, list[Schema]] = {}
    families = [*FAMILIES] if own is None else [*dict.fromkeys((*FAMILIES, own))]
    for family in families:
        for key, leaf in setting_infos(family).items():
            known = merged.setdefault(key, [])
            if (schema := _leaf(leaf)) not in known:
                known.append(schema)
    tree = {key: found[0] if len(found) == 1 else {"anyOf": found} for key, found in merged.items()}
    schema = _object(nested(tree))
    sections = "|".join(sorted({key.partition(".")[0] for key in tree if "." in key}))
    schema["patternProperties"] = {rf"^({sections})\.": {"description": "A dotted key."}}
    return {"$schema": _DRAFT, "title": "Settings", **schema}


def mode() -> Schema:
    """The schema of a file in ds_configs/modes."""
    merged: dict[str, Schema] = {}
    for family in FAMILIES:
        merged |= _blocks_of(family, _changeable)  # of one name in two families, the later stands
    schema = _object(nested(merged))
    schema["properties"]["sentence"] = {"type": "string", "description": "What `list modes` says."}
    return {
        "$schema": _DRAFT,
        "title": "A mode",
        **schema,
        "required": ["sentence"],
        "definitions": {"change": _CHANGE},
    }


def family(name: str) -> Schema:
    """The schema of a family's file in ds_configs/models."""
    block = _object(nested(_blocks_of(name, _leaf)))
    by_mode = _object({key: {"$ref": "#/definitions/mode"} for key in presets.modes()})
    inner = {"modes": by_mode}
    if stages := stages_of(name):
        inner["stages"] = _object({one.name: {"$ref": "#/definitions/mode"} for one in stages})
    size = {**block, "properties": {**block["properties"], **inner}}
    sizes = _object({key: {"$ref": "#/definitions/size"} for key in config_of(name).SIZES})
    return {
        "$schema": _DRAFT,
        "title": f"The family {name}",
        **_object({"default": block, "sizes": sizes, **inner}),
        "required": ["default"],
        "definitions": {
            "mode": _object(nested(_blocks_of(name, _changeable))),
            "size": size,
            "change": _CHANGE,
        },
    }


def own() -> Schema:
    """The schema of the file that holds for every task of a person's own."""
    schema = family(next(iter(FAMILIES)))
    for block in (schema["properties"]["default"], schema["definitions"]["mode"]):
        for section in ("model", "data"):
            del block["properties"][section]
    del schema["properties"]["sizes"], schema["definitions"]["size"]
    return {**schema, "title": "A task of a person's own"}


def files() -> dict[str, str]:
    """The text of every schema file by its path in ds_configs."""
    schemas = {"settings.schema.json": settings(), "mode.schema.json": mode()}
    schemas["own.schema.json"] = own()
    schemas |= {f"models/{name}.schema.json": family(name) for name in FAMILIES}
    return {path: json.dumps(schema, indent=1) + "\n" for path, schema in schemas.items()}


def write() -> None:
    """Bring the schema files in ds_configs up to date. Writes to the disk."""
    for path, text in files().items():
        (presets.FOLDER / path).write_text(text, encoding="utf-8")


def _blocks_of(name: str, schema_of: Callable[[SettingInfo], Schema]) -> dict[str, Schema]:
    """The settings that a shipped file may hold: all but the choice of files itself."""
    chosen = ("mode", "model.family", "engine.name", "engine.nproc")
    return {key: schema_of(leaf) for key, leaf in setting_infos(name).items() if key not in chosen}


def _changeable(leaf: SettingInfo) -> Schema:
    return (
        _leaf(leaf)
        if leaf.key == "promise"
        else {"anyOf": [_leaf(leaf), {"$ref": "#/definitions/change"}]}
    )


def _leaf(leaf: SettingInfo) -> Schema:
    schema: Schema = {"description": leaf.description, "default": leaf.default}
    if leaf.key == "model.family":
        return schema | {"anyOf": [{"enum": list(FAMILIES)}, {"type": "string", "pattern": ":"}]}
    if isinstance(leaf.allowed, tuple):
        return schema | {"enum": [*leaf.allowed, None] if leaf.nullable else list(leaf.allowed)}
    if leaf.key == "promise":
        bounds = {
            name: {"type": "number", "description": info.description}
            for name, info in Bounds.model_fields.items()
        }
        return schema | _object(dict.fromkeys(get_args(Measure), _object(bounds)))
    if leaf.key == "download.files":
        return schema | {"type": "array", "items": {"anyOf": [{"type": "string"}, _file(leaf)]}}
    if leaf.type.startswith("list of "):
        item = leaf.type.removeprefix("list of ").removesuffix("s")
        return schema | {"type": "array", "items": {"type": _TYPES[item]}}
    types = ["integer", "string"] if leaf.type == "length" else [_TYPES[leaf.type]]
    types += ["null"] if leaf.nullable else []
    schema["type"] = types if len(types) > 1 else types[0]
    names = {
        "ge": "minimum",
        "gt": "exclusiveMinimum",
        "le": "maximum",
        "lt": "exclusiveMaximum",
    }
    return schema | {names[name]: bound for name, bound in leaf.bounds.items()}


def _file(files: SettingInfo) -> Schema:
    """One file to fetch, in its long form."""
    keys = {name: _leaf(leaf) for name, leaf in files.items.items()}
    del keys["url"]["default"]
    return _object(keys) | {"required": ["url"]}


def _object(properties: Mapping[str, Any]) -> Schema:
    """A closed object; what is no schema yet is a tree of such objects."""
    return {
        "type": "object",
        "properties": {
            name: child if _is_schema(child) else _object(child)
            for name, child in properties.items()
        },
        "additionalProperties": False,
    }


def _is_schema(child: Mapping[str, Any]) -> bool:
    return any(isinstance(child.get(word), str | list) for word in _SCHEMA_WORDS)


if __name__ == "__main__":
    write()
