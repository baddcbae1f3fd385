"""A long text in parts, cut where nothing looks across the cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

PART = 1 << 18
"""Characters of a part: the tokenizers library takes some hundred bytes for each while it works."""

LONGEST = 4 * PART
"""Characters after which a part ends at any line, be the cut a good one or not."""


def parts(pieces: Iterable[str]) -> Iterator[str]:
    """`pieces` joined, in parts of about PART characters; a shorter text is one part.

    A cut falls between two lines that end and begin with a visible character. There neither the
    words of a byte-level tokenizer nor case nor blanks reach across: the parts give the tokens and
    the fingerprint of the whole. `pieces` begin with their line ends: a cut falls before one.
    """
    held: list[str] = []
    size = 0
    for piece in pieces:
        if size >= PART and (_is_seam(held[-1], piece) or size >= LONGEST):
            yield "".join(held)
            held, size = [], 0
        held.append(piece)
        size += len(piece)
    if held:
        yield "".join(held)


def in_parts(text: str) -> Iterator[str]:
    """`text` in parts."""
    if len(text) < PART:
        yield text
    else:
        yield from parts(with_line_ends(text.split("\n")))


def with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """Lines, each but the first after a line end."""
    end = ""
    for line in lines:
        yield end + line
        end = "\n"


def _is_seam(before: str, after: str) -> bool:
    is_visible = [c != "" and not c.isspace() for c in (before[-1:], after[1:2])]
    return all(is_visible) and after[0] == "\n"
