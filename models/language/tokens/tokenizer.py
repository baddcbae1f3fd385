"""What the family asks of a tokenizer, and the special tokens of its own ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from models.language.readers.records import Turn

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


_FORMS = {
    "system": "<system>{}</system>\n",
    "user": "User: {}\n",
    "assistant": "Assistant: {}\n",
    "tool": "<output>{}</output>\n",
}


def prompt_and_answer(
    before: Sequence[Turn], answer: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens up to the answer, and those of the answer with the end token.

    The form is that of the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`.
    """
    if form := tokenizer.template(before, answer):
        prompt, said = map(tokenizer.encode, form)
    else:
        text = "".join(_FORMS[t.role].format(t.text.strip()) for t in before) + "Assistant:"
        # A blank that is a token of its own belongs to the prompt: it is no part of the answer.
        blank_first, blank_last = ("", " ") if tokenizer.blank_leads else (" ", "")
        prompt = tokenizer.encode(text + blank_first)
        said = tokenizer.encode(blank_last + answer)
        if tokenizer.start is not None:
            prompt = np.concatenate(([tokenizer.start], prompt)).astype(prompt.dtype)
    if len(said) == 0 or said[-1] != tokenizer.end:
        said = np.append(said, np.array(tokenizer.end, dtype=prompt.dtype))
    return prompt, said
