"""Tokenizer protocol, the byte tokenizer, and the text form of a conversation."""

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
"""Tags in texts that are one token each."""

RESERVED = 5


class Tokenizer(Protocol):
    """Converts text to token ids and back."""

    name: str
    size: int
    """Number of token ids; every id is below it."""
    start: int | None
    """Token before a conversation; None: no token."""
    end: int
    """Token after a document or an answer."""
    pad: int
    leading_space: bool
    """Whether the space before a word belongs to the word's token."""

    @property
    def digest(self) -> str:
        """Digest that changes if texts would be encoded differently."""

    def encode(self, text: str) -> np.ndarray:
        """Tokens of `text`, an integer vector without special tokens."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, without start, end and padding."""

    def template(self, before: Sequence[Turn], answer: Turn, tools: str) -> tuple[str, str] | None:
        """Conversation in the chat template, cut before the answer; None: no template.

        `tools`: those that may be called, as JSON; empty: none.
        """


_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


class ByteTokenizer:
    """Every UTF-8 byte is a token (0-255), then padding, start, end, eight tags, five reserved."""

    name = digest = "bytes"
    pad, end = 256, 258
    start: int | None = 257
    first_tag = 259
    size = first_tag + len(TAGS) + RESERVED
    leading_space = False

    def encode(self, text: str) -> np.ndarray:
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
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD."""
        tags = {self.first_tag + i: tag.encode() for i, tag in enumerate(TAGS)}
        parts = (bytes([t]) if t < 256 else tags.get(t, b"") for t in map(int, tokens))
        return b"".join(parts).decode("utf-8", errors="replace")

    def template(self, before: Sequence[Turn], answer: Turn, tools: str) -> None:
        """None: no chat template."""
        return None


FORMS = {
    "system": "<system>{}</system>\n",
    "user": "User: {}\n",
    "assistant": "Assistant: {}\n",
    "tool": "<output>{}</output>\n",
}
"""The text form of a message before an answer, by its role."""
ANSWER = "Assistant:"
"""What comes before an answer, and a space."""


def prompt_and_answer(
    before: Sequence[Turn], answer: Turn, tokenizer: Tokenizer, tools: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens up to the answer, and tokens of the answer with the end token.

    Uses the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`, after a line
    `<tools>{tools}</tools>` if there are any.
    """
    if template := tokenizer.template(before, answer, tools):
        prompt, answer_tokens = map(tokenizer.encode, template)
    else:
        text = f"<tools>{tools}</tools>\n" if tools else ""
        text += "".join(FORMS[t.role].format(t.rendered.strip()) for t in before) + ANSWER
        # A space that is a token of its own belongs to the prompt, not to the answer.
        prompt_end, answer_start = ("", " ") if tokenizer.leading_space else (" ", "")
        prompt = tokenizer.encode(text + prompt_end)
        answer_tokens = tokenizer.encode(answer_start + answer.rendered.strip())
        if tokenizer.start is not None:
            prompt = np.concatenate(([tokenizer.start], prompt)).astype(prompt.dtype)
    if len(answer_tokens) == 0 or answer_tokens[-1] != tokenizer.end:
        answer_tokens = np.append(answer_tokens, np.array(tokenizer.end, dtype=prompt.dtype))
    return prompt, answer_tokens
