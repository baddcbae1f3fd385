"""Reads YAML with the line of every key, and the meaning that YAML 1.2 gives to plain words."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from launcher.config.nodes import Node, Unreadable, node_value

_INT = re.compile(r"^[-+]?[0-9]+$")
_HEX = re.compile(r"^0x[0-9a-fA-F]+$")
_OCTAL = re.compile(r"^0o[0-7]+$")
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
_TWO_READINGS = re.compile(r"^[-+]?0[0-9]+$")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Leaves every plain word a text, so that YAML 1.1 decides nothing."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


def parse_yaml(text: str) -> Node:
    """The document's root, None where it is empty. Raises Unreadable."""
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        assert mark is not None
        problem = error.problem or error.context or "not understood"
        raise Unreadable(problem, mark.line + 1, mark.column + 1) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = len(before) - before.rfind("\n")
        problem = "a control character is not allowed"
        raise Unreadable(problem, before.count("\n") + 1, column) from None
    return Node(None, 1) if root is None else _node(root, root.start_mark, ())


def parse_yaml_value(text: str) -> Any:
    """What `text` means as the value of a key, such as `1e-6`, `on`, `[0.9, 0.95]`.

    Raises Unreadable.
    """
    return node_value(parse_yaml(text))


def parse_yaml_scalar(text: str) -> Any:
    """What one plain word means in YAML 1.2's core schema.

    Raises ValueError for a number that YAML 1.1 and YAML 1.2 read differently.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _TWO_READINGS.match(text) and text.lstrip("+-0"):
        decimal = text[0].strip("0123456789") + text.lstrip("+-0")
        raise ValueError(
            f"{text} has two meanings, by its leading 0; write {decimal}, or as a text '{text}'"
        )
    if _INT.match(text):
        return int(text)
    if _HEX.match(text):
        return int(text, 16)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _FLOAT.match(text):
        return float(text)
    if match := _INFINITE.match(text):
        return float(f"{match[1]}inf")
    return text


def _node(node: Any, mark: Any, above: tuple[int, ...]) -> Node:
    """Our node of a YAML node; `mark` is where it, or its key, begins."""
    if node.tag not in _TAGS:
        raise _at(f"the tag {node.tag} is not read here", node.start_mark)
    if id(node) in above:
        raise _at("an alias that holds itself", mark)
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        return Node(_mapping(node, above), mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(item, item.start_mark, above) for item in node.value], mark.line + 1)
    if node.style:  # quoted, or a block of text
        return Node(node.value, mark.line + 1)
    try:
        return Node(parse_yaml_scalar(node.value), mark.line + 1, node.value)
    except ValueError as error:
        raise _at(str(error), node.start_mark) from None


def _mapping(node: Any, above: tuple[int, ...]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, child in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _at("a key that is no word", key.start_mark)
        if key.value in found:
            first = found[key.value].line
            raise _at(f"the key '{key.value}' stands twice, first in line {first}", key.start_mark)
        found[key.value] = _node(child, key.start_mark, above)
    return found


def _at(problem: str, mark: Any) -> Unreadable:
    return Unreadable(problem, mark.line + 1, mark.column + 1)
