"""Reads JSON with the line of every key."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from launcher.config.nodes import Node, Unreadable

_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[^ \t\n\r,\]}]+")


def parse_json(text: str) -> Node:
    """The document's root. Raises Unreadable."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(error.msg.lower(), error.lineno, error.colno) from None
    return _Walk(text).node(0)[0]


class _Walk:
    """Reads a text that is known to be JSON once more, for the lines."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.ends = [match.start() for match in re.finditer("\n", text)]

    def node(self, at: int, key_at: int | None = None) -> tuple[Node, int]:
        """The node at or after `at`, and where it ends."""
        at = self.skip(at)
        line = self.line(at if key_at is None else key_at)
        value: Any
        word: str | None = None
        if self.text[at] == "{":
            value, at = self.mapping(at + 1)
        elif self.text[at] == "[":
            value, at = self.sequence(at + 1)
        elif self.text[at] == '"':
            value, at = scanstring(self.text, at + 1)
        else:
            match = _WORD.match(self.text, at)
            assert match is not None
            word, at = match[0], match.end()
            value = json.loads(word)
        return Node(value, line, word), at

    def mapping(self, at: int) -> tuple[dict[str, Node], int]:
        found: dict[str, Node] = {}
        while self.text[at := self.skip(at)] != "}":
            key_at = self.skip(at + 1) if self.text[at] == "," else at
            key, at = scanstring(self.text, key_at + 1)
            if key in found:
                column = key_at - self.text.rfind("\n", 0, key_at)
                problem = f"the key '{key}' stands twice, first in line {found[key].line}"
                raise Unreadable(problem, self.line(key_at), column)
            found[key], at = self.node(self.skip(at) + 1, key_at)
        return found, at + 1

    def sequence(self, at: int) -> tuple[list[Node], int]:
        found: list[Node] = []
        while self.text[at := self.skip(at)] != "]":
            item, at = self.node(at + 1 if self.text[at] == "," else at)
            found.append(item)
        return found, at + 1

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def line(self, at: int) -> int:
        return bisect_right(self.ends, at) + 1
