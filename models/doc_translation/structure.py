"""How alike two Markdown texts are as trees of headings and paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_HEADING = re.compile(r"(#{1,6})\s*(.*)", re.DOTALL)
_BLANK = re.compile(r"\n\s*\n")


@dataclass
class Node:
    """A heading with what stands below it, or a paragraph."""

    kind: str
    has_text: bool
    level: int
    children: list[Node] = field(default_factory=list)


def tree(text: str) -> Node:
    """The headings and paragraphs of Markdown, below a root; blank lines and headings part them."""
    root = Node("root", True, 0)
    path = [root]
    for block in _blocks(text):
        heading = _HEADING.match(block)
        if heading is None:
            path[-1].children.append(Node("paragraph", True, 7))
            continue
        node = Node("heading", bool(heading[2].strip()), len(heading[1]))
        while path[-1].level >= node.level:
            path.pop()
        path[-1].children.append(node)
        path.append(node)
    return root


def _blocks(text: str) -> list[str]:
    """Paragraphs, and headings, which need no blank line after them."""
    found: list[str] = []
    for part in _BLANK.split(text):
        lines: list[str] = []
        for line in part.strip().split("\n"):
            if _HEADING.match(line):
                found += ["\n".join(lines), line]
                lines = []
            else:
                lines.append(line)
        found.append("\n".join(lines))
    return [block for block in found if block.strip()]


def _count(node: Node) -> int:
    return 1 + sum(map(_count, node.children))


def _relabel(one: Node | None, other: Node | None) -> int:
    """1 for what is inserted or removed; 0 for nodes of one kind that both say something."""
    if one is None or other is None:
        return 1
    return int(one.kind != other.kind or not (one.has_text and other.has_text))


def steds(written: str, reference: str) -> float:
    """100 · (1 − TED / nodes of the larger tree), the roots not counted; in [0, 100].

    TED is the ordered tree edit distance with unit costs. Source: Zhang and Shasha, Simple Fast
    Algorithms for the Editing Distance between Trees and Related Problems, 1989.
    """
    import zss

    one, other = tree(written), tree(reference)
    most = max(_count(one), _count(other)) - 1
    if most == 0:
        return 100.0
    distance = zss.distance(
        one,
        other,
        get_children=lambda node: node.children,
        insert_cost=lambda node: 1,
        remove_cost=lambda node: 1,
        update_cost=_relabel,
    )
    return 100.0 * (1 - float(distance) / most)
