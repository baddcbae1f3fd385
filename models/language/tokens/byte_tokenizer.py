"""Every UTF-8 byte is a token, and the tags are one each."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from models.language.text.records import Turn
from models.language.tokens.tokenizer import RESERVED, TAGS

_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


class ByteTokenizer:
    """Numbers 0-255 are bytes, then padding, start, end, the eight tags and five in reserve."""

    name = digest = "bytes"
    pad, end = 256, 258
    start: int | None = 257
    first_tag = 259
    size = first_tag + len(TAGS) + RESERVED
    blank_leads = False

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`, uint16."""
        parts = _TAG.split(text)
        return np.concatenate(
            [
                np.array([self.first_tag + TAGS.index(part)], dtype=np.uint16)
                if i % 2
                else np.frombuffer(part.encode(), dtype=np.uint8).astype(np.uint16)
                for i, part in enumerate(parts)
            ]
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; bytes that are no UTF-8 become U+FFFD."""
        tags = {self.first_tag + i: tag.encode() for i, tag in enumerate(TAGS)}
        parts = (bytes([t]) if t < 256 else tags.get(t, b"") for t in map(int, tokens))
        return b"".join(parts).decode("utf-8", errors="replace")

    def template(self, before: Sequence[Turn], answer: str) -> None:
        """None: the family's own form."""
        return None
