"""The contract of tokenizers, the byte tokenizer, and the text form of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from models.language.readers.records import Turn

TAGS = (
    "<system>", "</system>", "<command>", "</command>",
    "<file>", "</file>", "<output>", "</output>",
)  # fmt: skip
"""Tags in texts that are one token each."""
RESERVED = 5


class Tokenizer:
    """Converts text to token ids and back."""

    name: str
    digest: str
    """Changes if texts would be encoded differently."""
    size: int
    """Number of token ids; every id is below it."""
    start: int | None
    """Token before a conversation; None: no token."""
    end: int
    """Token after a document or an answer."""
    pad: int
    leading_space = True
    """Whether the space before a word belongs to the word's token."""

    @property
    def first(self) -> int:
        """The token before a document."""
        return self.end if self.start is None else self.start

    def encode(self, text: str) -> np.ndarray:
        """Tokens of `text`, an integer vector without start and end token."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokens of each text, in threads where a library has them. Raises DataError."""
        raise NotImplementedError

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`, without start, end and padding."""
        raise NotImplementedError

    def template(self, before: Sequence[Turn], answer: str) -> tuple[str, str] | None:
        """Conversation in the chat template, cut before the answer; None: no template.

        Raises DataError if the template fails.
        """
        return None


_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


class ByteTokenizer(Tokenizer):
    """Every UTF-8 byte is a token (0-255), then padding, start, end, eight tags, five reserved."""

    name = digest = "bytes"
    pad, start, end = 256, 257, 258
    first_tag = 259
    size = first_tag + len(TAGS) + RESERVED
    leading_space = False

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return list(map(self._encode, texts))

    def _encode(self, text: str) -> np.ndarray:
        parts = [
            np.array([self.first_tag + TAGS.index(part)], dtype=np.uint16)
            if i % 2
            else np.frombuffer(part.encode(), dtype=np.uint8).astype(np.uint16)
            for i, part in enumerate(_TAG.split(text))
        ]
        return np.concatenate(parts)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD."""
        tags = {self.first_tag + i: tag.encode() for i, tag in enumerate(TAGS)}
        parts = (bytes([t]) if t < 256 else tags.get(t, b"") for t in map(int, tokens))
        return b"".join(parts).decode("utf-8", errors="replace")


FORMS = {"system": "<system>{}</system>\n", "user": "User: {}\n", "assistant": "Assistant: {}\n"}
"""The text form of a message before an answer, by its role."""
ANSWER = "Assistant:"
"""What comes before an answer, and a space."""


def encode_exchanges(
    rendered: Sequence[tuple[str, str, bool]], tokenizer: Tokenizer
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Tokens up to each answer, and tokens of the answer with the end token; see `render`."""
    vectors = tokenizer.encode_batch([text for exchange in rendered for text in exchange[:2]])
    pairs = []
    for prompt, answer, (_, _, has_start) in zip(vectors[::2], vectors[1::2], rendered, strict=True):
        if has_start:
            prompt = np.append(np.array(tokenizer.start, dtype=prompt.dtype), prompt)
        if len(answer) == 0 or answer[-1] != tokenizer.end:
            answer = np.append(answer, np.array(tokenizer.end, dtype=prompt.dtype))
        pairs.append((prompt, answer))
    return pairs


def render(before: Sequence[Turn], answer: str, tokenizer: Tokenizer) -> tuple[str, str, bool]:
    """The text up to the answer, that of the answer, and whether a start token comes before both.

    Uses the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`.
    """
    if template := tokenizer.template(before, answer):
        return *template, False
    text = "".join(FORMS[t.role].format(t.text.strip()) for t in before) + ANSWER
    # A space that is a token of its own belongs to the prompt, not to the answer.
    prompt_end, answer_start = ("", " ") if tokenizer.leading_space else (" ", "")
    return text + prompt_end, answer_start + answer, tokenizer.start is not None


def prompt_and_answer(
    before: Sequence[Turn], answer: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens up to the answer, and tokens of the answer with the end token."""
    [pair] = encode_exchanges([render(before, answer.strip(), tokenizer)], tokenizer)
    return pair
