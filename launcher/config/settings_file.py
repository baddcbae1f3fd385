"""Reads a settings file, YAML or JSON, as a flat list: dotted key, value, and file with line."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import yaml

from gearshift.launcher.base.diagnostics import SettingsError, nearest_match

MAPPINGS = ("promise", "optim.groups")
"""Settings that hold names of the user's with values, no further settings."""
_WHOLE = tuple(f".{key}" for key in MAPPINGS)
CHANGES = {"scale", "at_least", "at_most", "smaller_of"}
"""What a mode's file may do to a default, instead of a value."""
_MAX_BYTES = 1 << 18
_MAX_VALUES = 10_000
_MAX_DEPTH = 50
"""Bounds of a file, far above those of real settings: a few aliases can stand for billions."""
_MAX_DIGITS = 1000
"""Of a number: Python reads a longer hexadecimal one, and then cannot print it."""
_SHOWN = 20
"""Characters of a number in a message."""
_LONG_TEXT = 100
"""Characters of a text that count as one more value."""


class Line(NamedTuple):
    """A setting of a file."""

    key: str
    value: Any
    where: str
    """`mine.yaml:12`: where its key stands, counted from 1."""


class Unreadable(Exception):
    """The text breaks the rules of its format: problem, line and column, counted from 1."""


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of a tree by dotted key; a key of it may be dotted, too."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not f".{key}".endswith(_WHOLE):
            yield from flat(value, f"{key}.")
        else:
            yield key, value


def read_values(path: Path) -> dict[str, Any]:
    """The value of each dotted key of a file. Reads the disk. Raises SettingsError."""
    return {line.key: line.value for line in read_lines(path)}


def read_lines(path: Path, option: str = "--config", name: str | None = None) -> list[Line]:
    """The settings of a file that `option` names; JSON where its name ends in .json, else YAML.

    `name` is the file in messages. Reads the disk. Raises SettingsError if it does not exist or is
    invalid.
    """
    form = "YAML"
    parse = parse_yaml
    if path.suffix == ".json":
        form = "JSON"
        parse = parse_json
    where = f"{option} {path}"
    value: str | None = str(path)
    allowed = None
    like = None
    fix = None
    hint = None
    try:
        file_stat = path.stat()
        if not stat.S_ISREG(file_stat.st_mode) and not stat.S_ISDIR(file_stat.st_mode):
            problem = "is not a regular file"
        elif file_stat.st_size > _MAX_BYTES:
            problem = f"has {file_stat.st_size:,} bytes, too many for settings"
            allowed = f"at most {_MAX_BYTES:,} bytes"
        else:
            return list(parse(path.read_bytes().decode("utf-8-sig"), name or str(path)))
    except Unreadable as broken:
        cause, line, column = broken.args
        problem = f"cannot be read as {form}: {cause}"
        value = None
        where = f"{path}:{line}:{column}"
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        where = f"{path}:{line}"
        hint = "save the file as UTF-8"
    except FileNotFoundError:
        problem = f"does not exist ({path.absolute()})"
        like = nearest_file(path)
        if like is not None and option.startswith("-"):
            fix = f"{option} {shlex.quote(like)}"
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    raise SettingsError.of(
        f"{path} {problem}",
        value=value,
        where=where,
        allowed=allowed,
        did_you_mean=like,
        fix=fix,
        replaces=(f"{option} {path}",),
        hint=hint,
    )


def nearest_file(path: str | Path) -> str | None:
    """The file or folder beside `path`, which does not exist, with the nearest name. Reads disk."""
    path = Path(path)
    folder = Path(os.path.expanduser(path)).parent
    if not folder.is_dir():
        return None
    names = [name for name in os.listdir(folder) if name != path.name]  # it may be a link
    like = nearest_match(path.name, names)
    return like and str(path.parent / like)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Keeps every plain scalar a text, so that YAML 1.1 has no effect."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


_INT = re.compile(r"^([-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)$")
_FLOAT = re.compile(r"^[-+]?((\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$")
_WORDS = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    ".nan": math.nan,
    ".NaN": math.nan,
    ".NAN": math.nan,
}
_TAGS = {"tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_TOO_DEEP = f"more than {_MAX_DEPTH} levels of lists and mappings"
_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
"""From 1,000 levels on, before any node."""
_PAIR = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
"""A letter beyond 16 bits as JSON escapes it, which YAML does not know."""


def parse_json(text: str, name: str = "") -> Iterator[Line]:
    """As `parse_yaml`, of JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(error.msg.lower(), error.lineno, error.colno) from None
    except (ValueError, RecursionError):
        pass  # a long number, and deep levels: YAML's reader counts them
    # Valid JSON is YAML but for these; a text of JSON holds no tabs.
    text = _PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text.replace("\t", " "))
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str = "") -> Iterator[Line]:
    """The settings of a document of the file `name`. Raises Unreadable, and SettingsError."""
    root = _compose(text)
    if isinstance(root, yaml.MappingNode):
        return _Reader(name).lines(root, "", 1)
    is_plain = isinstance(root, yaml.ScalarNode) and not root.style
    if root is None or (is_plain and _WORDS.get(root.value, root) is None):
        return iter(())
    raise SettingsError.of(
        f"{name} holds no settings: its root is not a mapping",
        where=f"{name}:{root.start_mark.line + 1}",
        allowed="keys with values, for example  optim: {lr: 1e-3}",
    )


def parse_yaml_value(text: str) -> Any:
    """The value of `text` as YAML: `1e-6`, `on`, `[0.9, 0.95]`. Raises Unreadable."""
    root = _compose(text)
    return None if root is None else _Reader("").value(root, 0)


def _compose(text: str) -> Any:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        problem = error.problem or error.context or "not understood"
        if problem == _LIBYAML_TOO_DEEP:
            problem = _TOO_DEEP
        raise _at(problem, mark) from None
    except UnicodeEncodeError as error:
        raise Unreadable("a byte that is no UTF-8 text", 1, error.start + 1) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = len(before) - before.rfind("\n")
        problem = "a control character is not allowed"
        raise Unreadable(problem, before.count("\n") + 1, column) from None
    except RecursionError:
        raise Unreadable(_TOO_DEEP, 1, 1) from None


class _Reader:
    """Reads the nodes of one document; an alias counts as many values as it stands for."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._count = 0
        self._lines: dict[str, int] = {}

    def lines(self, node: yaml.MappingNode, prefix: str, depth: int) -> Iterator[Line]:
        """The settings of a section; an empty one has none."""
        for key, mark, child in self._pairs(node, depth):
            dotted = f"{prefix}{key}"
            if self._is_section(dotted, child):
                yield from self.lines(child, f"{dotted}.", depth + 1)
                continue
            where = f"{self._name}:{mark.line + 1}"
            if dotted in self._lines:  # both nested and dotted
                message = f"{dotted} is set twice, first in {self._name}:{self._lines[dotted]}"
                place = f"{where} {dotted}"
                raise SettingsError.of(message, key=dotted, where=place, hint="remove one of them")
            self._lines[dotted] = mark.line + 1
            yield Line(dotted, self.value(child, depth + 1), where)

    def _is_section(self, dotted: str, node: Any) -> bool:
        """Whether a node holds settings, and is not the value of one: a mapping, or a change."""
        if not isinstance(node, yaml.MappingNode) or f".{dotted}".endswith(_WHOLE):
            return False
        names = {str(key.value) for key, _ in node.value}
        return not names or not names <= CHANGES

    def value(self, node: Any, depth: int) -> Any:
        """The value of a node. Raises Unreadable."""
        self._weigh(node, depth)
        if isinstance(node, yaml.MappingNode):
            return {k: self.value(child, depth + 1) for k, _, child in self._pairs(node, depth)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        if node.style:  # quoted, or a block of text
            return node.value
        try:
            return parse_yaml_scalar(node.value)
        except ValueError as error:
            raise _at(str(error), node.start_mark) from None

    def _pairs(self, node: yaml.MappingNode, depth: int) -> Iterator[tuple[str, Any, Any]]:
        """Each key with its place, and the node of its value."""
        self._weigh(node, depth)
        first: dict[str, int] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _at("a key that is not a scalar", key.start_mark)
            if key.value in first:
                problem = f"the key '{key.value}' is set twice, first in line {first[key.value]}"
                raise _at(problem, key.start_mark)
            first[key.value] = key.start_mark.line + 1
            yield key.value, key.start_mark, child

    def _weigh(self, node: Any, depth: int) -> None:
        self._count += 1
        if isinstance(node.value, str):
            self._count += len(node.value) // _LONG_TEXT
        if node.tag not in _TAGS:
            raise _at(f"the tag {node.tag} is not read here", node.start_mark)
        if depth > _MAX_DEPTH:  # an alias that holds itself has no end
            raise _at(_TOO_DEEP, node.start_mark)
        if self._count > _MAX_VALUES:
            problem = f"more than {_MAX_VALUES:,} values, those of aliases counted"
            raise _at(problem, node.start_mark)


def _at(problem: str, mark: Any) -> Unreadable:
    return Unreadable(problem, mark.line + 1, mark.column + 1)


def parse_yaml_scalar(text: str) -> Any:
    """The value of a plain scalar in the core schema of YAML 1.2.

    Raises ValueError for a number that YAML 1.1 and YAML 1.2 read differently.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        problem = f"{text[:_SHOWN]} is no number: it has a leading 0, or too many digits"
        if len(text) > _MAX_DIGITS:
            raise ValueError(problem)
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError(problem) from None
    if _FLOAT.match(text):
        return float(text.lower().replace(".inf", "inf"))
    return text
