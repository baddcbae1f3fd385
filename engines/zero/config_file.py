"""Reading DeepSpeed's JSON files: their values, and the line of each key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


class FileError(ValueError):
    """A file is not DeepSpeed's JSON; `line` counts from 1, None: no single line is at fault."""

    def __init__(self, text: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(text)


@dataclass(frozen=True)
class DeepSpeedFile:
    """The values of a file, and by dotted key the line on which each stands, from 1."""

    values: Mapping[str, Any]
    lines: Mapping[str, int]


def shipped(name: str) -> dict[str, Any]:
    """The JSON of an engine, by the name in its catalogue line. Reads the disk."""
    return json.loads((files("ds_configs") / "deepspeed" / name).read_text("utf-8"))


def read(path: Path) -> DeepSpeedFile:
    """A person's own file. Reads the disk. Raises FileError and OSError."""
    try:
        return parse(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise FileError("is not UTF-8 text") from None


def parse(text: str) -> DeepSpeedFile:
    """The values and lines of a JSON object. Raises FileError."""
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as fault:
        raise FileError(f"is not JSON: {fault.msg} (column {fault.colno})", fault.lineno) from None
    if not isinstance(values, dict):
        raise FileError("must hold a JSON object", 1)
    return DeepSpeedFile(values, _lines(text))


def _no_constant(name: str) -> None:
    raise FileError(f"holds {name}, which is no JSON number")


def _lines(text: str) -> dict[str, int]:
    """The line of each key of valid JSON `text`. Raises FileError for a key given twice."""
    lines: dict[str, int] = {}
    path: list[str | None] = []  # the open objects by their key; None for an array
    key, before = "", ""
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word == "{":
            path.append(key)
        elif word == "[":
            path.append(None)
        elif word in "}]":
            path.pop()
        elif word[0] == '"' and before in ("{", ",") and path[-1] is not None:
            key = json.loads(word)
            line = text.count("\n", 0, token.start()) + 1
            _note(lines, path, key, line)
        before = word
    return lines


def _note(lines: dict[str, int], path: list[str | None], key: str, line: int) -> None:
    names = [name for name in path[1:] if name is not None]
    if len(names) < len(path) - 1:
        return  # inside an array no key has a dotted name
    dotted = ".".join([*names, key])
    if dotted in lines:
        raise FileError(f"holds '{dotted}' twice, first on line {lines[dotted]}", line)
    lines[dotted] = line
