"""What the family asks of a tokenizer, and the special tokens of its own ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.language.text.records import Turn

TAGS = (
    "<system>", "</system>", "<command>", "</command>",
    "<file>", "</file>", "<output>", "</output>",
)  # fmt: skip
"""Marks that stand in texts and are one token each."""

RESERVED = 5


class Tokenizer(Protocol):
    """Text to numbers and back."""

    name: str
    size: int
    """Numbers there are: every token is below."""
    start: int | None
    """Stands before a dialogue; None: nothing does."""
    end: int
    """Ends a document or an answer."""
    pad: int
    blank_leads: bool
    """Whether the blank before a word belongs to the word's token."""

    @property
    def digest(self) -> str:
        """Another one where texts would be encoded otherwise."""

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`, an integer vector; none is added."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without start, end and padding."""

    def template(self, before: Sequence[Turn], answer: str) -> tuple[str, str] | None:
        """A dialogue in the form the tokenizer brings along, cut before the answer; None: ours."""
