"""DeepSpeed config files: their values, and the line of each key."""

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
    """A file is not a DeepSpeed config; `line` counts from 1, or is None."""

    def __init__(self, text: str, line: int | None = None) -> None:
        self.line = line
        super().__init__(text)


@dataclass(frozen=True)
class DeepSpeedFile:
    """The values of a file, and the line of each dotted key, from 1."""

    values: Mapping[str, Any]
    lines: Mapping[str, int]


def shipped(name: str) -> dict[str, Any]:
    """The config of an engine, by the file name in the catalog. Reads the disk."""
    return json.loads((files("ds_configs") / "deepspeed" / name).read_text("utf-8"))


def read(path: Path) -> DeepSpeedFile:
    """A user's config file. Reads the disk. Raises FileError and OSError."""
    try:
        return parse(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise FileError("is not UTF-8") from None


def parse(text: str) -> DeepSpeedFile:
    """The values and lines of a JSON object. Raises FileError."""
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise FileError(f"is not JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except FileError:
        raise
    except ValueError:
        raise FileError("contains a number of thousands of digits", 1) from None
    except RecursionError:
        raise FileError("has too many levels of lists and objects", 1) from None
    if not isinstance(values, dict):
        raise FileError("must contain a JSON object", 1)
    return DeepSpeedFile(values, _lines(text))


def _no_constant(name: str) -> None:
    raise FileError(f"contains {name}, which is not a JSON number")


def _lines(text: str) -> dict[str, int]:
    """The line of each key of valid JSON `text`. Raises FileError for a key given twice."""
    lines: dict[str, int] = {}
    path: list[str | None] = []  # the open objects by their key; None for an array
    key, before = "", ""
    for token in _TOKEN.finditer(text):
        part = token.group()
        if part == "{":
            path.append(key)
        elif part == "[":
            path.append(None)
        elif part in "}]":
            path.pop()
        elif part[0] == '"' and before in ("{", ",") and path[-1] is not None:
            key = json.loads(part)
            line = text.count("\n", 0, token.start()) + 1
            _add_line(lines, path, key, line)
        before = part
    return lines


def _add_line(lines: dict[str, int], path: list[str | None], key: str, line: int) -> None:
    names = [name for name in path[1:] if name is not None]
    if len(names) < len(path) - 1:
        return  # inside an array no key has a dotted name
    dotted = ".".join([*names, key])
    if dotted in lines:
        raise FileError(f"contains '{dotted}' twice, first on line {lines[dotted]}", line)
    lines[dotted] = line
