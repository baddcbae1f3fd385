"""The contract of tokenizers, the byte tokenizer, and the text form of a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gearshift.models.base import Message
from gearshift.models.language.readers.records import Record

TAGS = (
    "<system>",
    "</system>",
    "<command>",
    "</command>",
    "<file>",
    "</file>",
    "<output>",
    "</output>",
)
"""Tags in texts that are one token each."""
RESERVED = 5

FORMS = {"system": "<system>{}</system>\n", "user": "User: {}\n", "tool": "Tool: {}\n"}
"""The text form of a message before an answer, by its role."""
ANSWER = "Assistant:"
"""What comes before an answer, and a space; after it come the end token and a line end."""


Parts = list[list[np.ndarray]]
"""The tokens of each part of each text."""
Cuts = Sequence[Sequence[int]]
"""Where each text is cut into parts, in letters."""


class Exchange(NamedTuple):
    """The tokens of an answer with what ends it, and those before it."""

    begins_row: bool
    """Or else `before` follows the answer of the exchange before it in the same row."""
    before: np.ndarray
    answer: np.ndarray


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
    def dtype(self) -> type:
        """The smallest type that holds all token ids."""
        return np.uint16 if self.size <= 2**16 else np.uint32

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

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens that end an answer."""
        return (self.end,)

    def encode_parts(self, texts: Sequence[str], cuts: Cuts) -> Parts:
        """Tokens of each text, cut at the letters where answers begin and end, in turn.

        A token that some letters of an answer are in belongs to it. Raises DataError.
        """
        raise NotImplementedError

    def encode_chats(self, chats: Sequence[Sequence[Record]]) -> Iterator[Exchange]:
        """The exchange of each record; the records of a chat are answers of one conversation.

        In the text form, where a conversation is one row. Raises DataError.
        """
        texts = []
        cuts = []
        for records in chats:
            for text, cut in self._sections(records[-1].conversation):
                texts.append(text)
                cuts.append([cut])
        parts = iter(self.encode_parts(texts, cuts))

        for records in chats:
            learned = {record.at for record in records}
            begins_row = True
            before = [] if self.start is None else [np.array([self.start])]
            for at, turn in enumerate(records[-1].conversation):
                if turn.role != "assistant":
                    continue
                context, answer = next(parts)
                answer = np.append(answer, self.end)
                before.append(context)
                if at in learned:
                    yield Exchange(begins_row, np.concatenate(before), answer)
                    begins_row = False
                    before = []
                else:
                    before.append(answer)

    def _sections(self, turns: Sequence[Message]) -> Iterator[tuple[str, int]]:
        """The text from the end of one answer to that of the next, and where the latter begins."""
        text = ""
        for turn in turns:
            said = turn.text.strip()
            if turn.role != "assistant":
                text += FORMS[turn.role].format(said)
                continue
            text += ANSWER
            # A space that is a token of its own belongs to the prompt, not to the answer.
            if not self.leading_space:
                text += " "
            elif said:
                said = f" {said}"
            yield text + said, len(text)
            text = "\n"

    def prompt(self, turns: Sequence[Message]) -> np.ndarray:
        """Tokens of a conversation up to its next answer. Raises DataError."""
        answer = Record(
            "",
            "",
            "",
            (*turns, Message("assistant", "")),
            len(turns),
        )
        [exchange] = self.encode_chats([[answer]])
        return exchange.before


_TAG = re.compile("(" + "|".join(map(re.escape, TAGS)) + ")")


class ByteTokenizer(Tokenizer):
    """Every UTF-8 byte is a token (0-255), then padding, start, end, eight tags, five reserved."""

    name = digest = "bytes"
    pad = 256
    start = 257
    end = 258
    first_tag = 259
    size = first_tag + len(TAGS) + RESERVED
    leading_space = False

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return list(map(self._encode, texts))

    def _encode(self, text: str) -> np.ndarray:
        parts = []
        for part in _TAG.split(text):
            if part in TAGS:
                tokens = np.array([self.first_tag + TAGS.index(part)], np.uint16)
            else:
                tokens = np.frombuffer(part.encode(), np.uint8).astype(np.uint16)
            parts.append(tokens)
        return np.concatenate(parts)

    def encode_parts(self, texts: Sequence[str], cuts: Cuts) -> Parts:
        """The tokens of a part do not depend on the text around it."""
        parts = []
        for text, edges in zip(texts, cuts, strict=True):
            bounds = pairwise([0, *edges, len(text)])
            parts.append([self._encode(text[begin:end]) for begin, end in bounds])
        return parts

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of `tokens`; bytes that are not UTF-8 become U+FFFD."""
        tags = dict(enumerate(TAGS, start=self.first_tag))
        text = bytearray()
        for token in map(int, tokens):
            if token < 256:
                text.append(token)
            else:
                text += tags.get(token, "").encode()
        return text.decode("utf-8", errors="replace")
