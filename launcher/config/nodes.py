"""A value of a settings file, with the line it stands on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Node:
    """A value of a file. `value` is a scalar, a list of nodes, or a dict of key to node."""

    value: Any
    line: int
    """Where it begins, counted from 1; for the value of a key, the line of the key."""
    text: str | None = None
    """A plain word as it was typed; None for texts in quotes and for what holds other values."""


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
