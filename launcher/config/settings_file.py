"""Reads a settings file of either format, and says what keeps it from being read."""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from launcher.base.diagnostics import SettingsError, nearest_match

_MAX_BYTES = 1 << 20
_MAX_VALUES = 10_000
_MAX_DEPTH = 50
_MAX_DIGITS = 1000
"""Bounds of a file, far above those of real settings: a few aliases can stand for billions."""
_LONG_TEXT = 100
"""Characters of a text that count as one more value."""


def read_settings_file(path: Path) -> Node:
    """The file's root mapping; JSON where the name ends in .json, else YAML. Reads the disk.

    Raises SettingsError if it does not exist or is invalid.
    """
    return parse_settings(path, read_text(path))


def parse_settings(path: Path, text: str) -> Node:
    """As `read_settings_file`, from the `text` of the file."""
    try:
        root = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except Unreadable as broken:
        form = "JSON" if path.suffix == ".json" else "YAML"
        raise SettingsError.of(
            f"{path} cannot be read as {form}: {broken.problem}",
            where=f"{path}:{broken.line}:{broken.column}",
            order=(0, broken.line),
        ) from None
    if root.value is None:
        return Node({}, 1)
    if not isinstance(root.value, dict):
        raise SettingsError.of(
            f"{path} holds no settings: its root is not a mapping",
            where=f"{path}:{root.line}",
            allowed="keys with values, for example  optim: {lr: 1e-3}",
        )
    return root


def read_text(path: Path, option: str = "--config") -> str:
    """The text of a settings file that `option` names. Reads the disk; raises SettingsError."""
    parts: dict[str, Any] = {"value": str(path), "where": f"{option} {path}"}
    try:
        file_stat = path.stat()
        if not stat.S_ISREG(file_stat.st_mode) and not stat.S_ISDIR(file_stat.st_mode):
            problem = "is not a regular file"
            parts["allowed"] = "a file on disk, not a pipe or a device"
        elif file_stat.st_size > _MAX_BYTES:
            problem = f"has {file_stat.st_size:,} bytes, too many for settings"
            parts["allowed"] = f"at most {_MAX_BYTES:,} bytes"
        else:
            return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problem = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
        parts |= {"where": f"{path}:{line}", "fix": "save the file as UTF-8"}
    except FileNotFoundError:
        problem, folder = f"does not exist ({path.absolute()})", path.parent
        names = [p.name for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
        if like := nearest_match(path.name, names):
            parts |= {"did_you_mean": str(folder / like), "fix": f"{option} {folder / like}"}
    except OSError as error:
        problem = f"cannot be read: {(error.strerror or str(error)).lower()}"
    raise SettingsError.of(f"{path} {problem}", **parts)


@dataclass(frozen=True)
class Node:
    """A value of a file. `value` is a scalar, a list of nodes, or a dict of key to node."""

    value: Any
    line: int
    """Where it begins, counted from 1; for the value of a key, the line of the key."""
    text: str | None = None
    """A plain scalar as typed; None for quoted texts, lists and mappings."""


class Unreadable(Exception):
    """The text breaks the rules of its format; `line` and `column` count from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        super().__init__(problem)
        self.problem = problem
        self.line = line
        self.column = column


def node_value(node: Node) -> Any:
    """The value without its lines."""
    if isinstance(node.value, dict):
        return {key: node_value(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [node_value(child) for child in node.value]
    return node.value


_INT = re.compile(r"^([-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_INFINITE = re.compile(r"^([-+]?)\.(inf|Inf|INF)$")
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_TEXT = "tag:yaml.org,2002:str"
_TAGS = {_TEXT, "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_TOO_MANY = f"more than {_MAX_VALUES:,} values, those of aliases counted"
_TOO_DEEP = f"more than {_MAX_DEPTH} levels of lists and mappings"
_LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"
"""From 1,000 levels on, before the events of the first of them."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Keeps every plain scalar a text, so that YAML 1.1 has no effect."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


def parse_yaml(text: str) -> Node:
    """The document's root, None if it is empty. Raises Unreadable.

    An alias counts as many values as it stands for, a long text as several; none holds itself.
    """
    count, above, sizes = 0, list[tuple[str | None, int]](), dict[str | None, int]()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionEndEvent):
                anchor, start = above.pop()
                sizes[anchor] = count - start
            elif isinstance(event, yaml.AliasEvent):
                if any(event.anchor == anchor for anchor, _ in above):
                    raise _at("an alias that holds itself", event.start_mark)
                count += sizes.get(event.anchor, 1)
            elif isinstance(event, yaml.NodeEvent):
                if isinstance(event, yaml.CollectionStartEvent):
                    above.append((event.anchor, count))
                weight = 1 + len(getattr(event, "value", "")) // _LONG_TEXT
                count += weight
                sizes[event.anchor] = weight
            if count > _MAX_VALUES:
                raise _at(_TOO_MANY, event.start_mark)
            if len(above) > _MAX_DEPTH:
                raise _at(_TOO_DEEP, event.start_mark)
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        problem = error.problem or error.context or "not understood"
        problem = _TOO_DEEP if problem == _LIBYAML_TOO_DEEP else problem
        raise Unreadable(problem, mark.line + 1, mark.column + 1) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = len(before) - before.rfind("\n")
        problem = "a control character is not allowed"
        raise Unreadable(problem, before.count("\n") + 1, column) from None
    return Node(None, 1) if root is None else _node(root, root.start_mark)


def parse_yaml_value(text: str) -> Any:
    """The value of `text` as YAML: `1e-6`, `on`, `[0.9, 0.95]`.

    Raises Unreadable.
    """
    return node_value(parse_yaml(text))


def parse_yaml_scalar(text: str) -> Any:
    """The value of a plain scalar in the core schema of YAML 1.2.

    Raises ValueError for a number that YAML 1.1 and YAML 1.2 read differently.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"a whole number of {len(text):,} digits")
        try:
            return int(text, 0)
        except ValueError:
            decimal = text[0].strip("0123456789") + text.lstrip("+-0")
            what = f"{text} has two meanings, by its leading 0"
            raise ValueError(f"{what}; write {decimal}, or as a text '{text}'") from None
    if _FLOAT.match(text):
        return float(text)
    if match := _INFINITE.match(text):
        return float(f"{match[1]}inf")
    return text


def _node(node: Any, mark: Any) -> Node:
    """Our node of a YAML node; `mark` is where it, or its key, begins."""
    if node.tag not in _TAGS:
        raise _at(f"the tag {node.tag} is not read here", node.start_mark)
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(node), mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item, item.start_mark) for item in node.value], mark.line + 1)
    if node.style:  # quoted, or a block of text
        return Node(node.value, mark.line + 1)
    try:
        return Node(parse_yaml_scalar(node.value), mark.line + 1, node.value)
    except ValueError as error:
        raise _at(str(error), node.start_mark) from None


def _mapping(node: Any) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _at("a key that is not a scalar", key.start_mark)
        if key.value in nodes:
            first = nodes[key.value].line
            problem = f"the key '{key.value}' is set twice, first in line {first}"
            raise _at(problem, key.start_mark)
        nodes[key.value] = _node(child, key.start_mark)
    return nodes


def _at(problem: str, mark: Any) -> Unreadable:
    return Unreadable(problem, mark.line + 1, mark.column + 1)


_PAIR = re.compile(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..")
"""A letter beyond 16 bits as JSON escapes it, which YAML does not know."""


def parse_json(text: str) -> Node:
    """The document's root. Raises Unreadable."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(error.msg.lower(), error.lineno, error.colno) from None
    except (ValueError, RecursionError):
        pass  # a long number, and deep levels: YAML's reader counts them
    # Valid JSON is YAML but for these; a text of JSON holds no tabs.
    return parse_yaml(_PAIR.sub(lambda pair: json.loads(f'"{pair[0]}"'), text.replace("\t", " ")))
