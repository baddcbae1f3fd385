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

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of each text, as `encode`, but in threads where a library has them."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, without start, end and padding."""

    def template(self, before: Sequence[Turn], answer: Turn) -> tuple[str, str] | None:
        """Conversation in the chat template, cut before the answer; None: no template."""


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

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return list(map(self.encode, texts))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD."""
        tags = {self.first_tag + i: tag.encode() for i, tag in enumerate(TAGS)}
        parts = (bytes([t]) if t < 256 else tags.get(t, b"") for t in map(int, tokens))
        return b"".join(parts).decode("utf-8", errors="replace")

    def template(self, before: Sequence[Turn], answer: Turn) -> None:
        """None: no chat template."""
        return None


FORMS = {"system": "<system>{}</system>\n", "user": "User: {}\n", "assistant": "Assistant: {}\n"}
"""The text form of a message before an answer, by its role."""
ANSWER = "Assistant:"
"""What comes before an answer, and a space."""


def prompt_and_answer(
    before: Sequence[Turn], answer: Turn, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens up to the answer, and tokens of the answer with the end token."""
    *texts, has_start = rendered(before, answer, tokenizer)
    prompt, answer_tokens = map(tokenizer.encode, texts)
    return with_ends(prompt, answer_tokens, tokenizer, has_start)


def rendered(before: Sequence[Turn], answer: Turn, tokenizer: Tokenizer) -> tuple[str, str, bool]:
    """The text up to the answer, that of the answer, and whether a start token comes before both.

    Uses the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`.
    """
    if template := tokenizer.template(before, answer):
        return *template, False
    text = "".join(FORMS[t.role].format(t.text.strip()) for t in before) + ANSWER
    # A space that is a token of its own belongs to the prompt, not to the answer.
    prompt_end, answer_start = ("", " ") if tokenizer.leading_space else (" ", "")
    has_start = tokenizer.start is not None
    return text + prompt_end, answer_start + answer.text.strip(), has_start


def with_ends(
    prompt: np.ndarray, answer: np.ndarray, tokenizer: Tokenizer, has_start: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of a prompt and its answer, with the start and the end token."""
    if has_start:
        prompt = np.append(np.array(tokenizer.start, dtype=prompt.dtype), prompt)
    if len(answer) == 0 or answer[-1] != tokenizer.end:
        answer = np.append(answer, np.array(tokenizer.end, dtype=prompt.dtype))
    return prompt, answer
