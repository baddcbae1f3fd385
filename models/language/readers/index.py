"""Index of records: names, groups and labels in memory while the text stays on disk."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterator, Mapping

import numpy as np

from models.language.readers.records import Conversation, Document, Exchange

_CHUNK = 4096


class Texts:
    """Read-only sequence of short texts in two arrays, a tenth of their size as objects."""

    def __init__(self, letters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        """`letters`: UTF-8 of all texts, uint8; text i is `starts[i]` to `ends[i]`, int64."""
        # A plain view of a mapped file: slicing np.memmap is slow.
        self._letters, self._starts, self._ends = letters.view(np.ndarray), starts, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        return self._text(int(self._starts[index]), int(self._ends[index]))

    def _text(self, start: int, end: int) -> str:
        # File names need not be UTF-8.
        return self._letters[start:end].tobytes().decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), _CHUNK):
            chosen = slice(at, at + _CHUNK)
            edges = zip(self._starts[chosen].tolist(), self._ends[chosen].tolist(), strict=True)
            yield from (self._text(start, end) for start, end in edges)


def _texts(letters: np.ndarray, ends: np.ndarray, kept: np.ndarray) -> Texts:
    """The texts with the numbers `kept` of the arrays of a TextsBuilder."""
    starts = np.concatenate(([0], ends)).astype(np.int64)
    return Texts(letters, starts[kept], ends[kept])


class TextsBuilder:
    """Builds the arrays of Texts."""

    def __init__(self) -> None:
        self._letters, self._ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, text: str) -> None:
        """Append a text."""
        self._letters += text.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._letters))

    def rollback(self, count: int) -> None:
        """Keep the first `count` texts only."""
        del self._ends[count:]
        del self._letters[self._ends[-1] if count else 0 :]

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Letters and ends of the texts. Nothing can be added afterwards."""
        return np.frombuffer(self._letters, np.uint8), np.frombuffer(self._ends, np.int64)


DIGEST = 16
"""Bytes of a digest: a billion texts have a collision with probability 10**-20."""


class Index:
    """Documents or exchanges without duplicates, in reading order.

    `kept` holds their numbers among all that were read; the other `duplicates` have the same text
    or request as an earlier one. `names` is the source of each, `groups` its split group, `labels`
    the number of its kind of request.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        """`arrays` from Scan.arrays, or from a cache."""
        self.is_text = bool(arrays["is_text"][0])
        self.skipped = int(arrays["skipped"][0])
        self.bad_parts = frozenset(arrays["bad_parts"].tolist())
        self.kept = arrays["kept"]
        self.names = _texts(arrays["names"], arrays["name_ends"], self.kept)
        self.groups, self.labels = self.names, arrays["labels"]
        if not self.is_text:
            self.groups = _texts(arrays["groups"], arrays["group_ends"], self.kept)
            self.labels = self.labels[self.kept]
        self.duplicates = len(arrays["name_ends"]) - len(self.kept)
        self.encodings: dict[str, list[str]] = json.loads(arrays["notes"].tobytes())
        """The parts whose encoding was assumed, by encoding."""


class Scan:
    """Builds an index from records as they are read."""

    def __init__(self) -> None:
        self.documents = self.conversations = self.exchanges = 0
        self._names, self._groups = TextsBuilder(), TextsBuilder()
        self._keys, self._labels = bytearray(), bytearray()
        self._open: tuple[str, _Fingerprint] | None = None

    def add_document(self, document: Document) -> None:
        """Add a document, or the next part of the last one."""
        if self._open is None or self._open[0] != document.group:
            self.close()
            self.documents += 1
            self._names.add(document.group)
            self._open = document.group, _Fingerprint()
        self._open[1].add(document.text)

    def add_conversation(self, conversation: Conversation) -> bool:
        """Add the exchanges of a conversation; False if there are none."""
        exchanges = exchanges_in(conversation)
        for exchange in exchanges:
            self._names.add(exchange.where)
            self._groups.add(exchange.group)
            request = [f"{turn.role} {normalized(turn.text)}" for turn in exchange.before]
            self._keys += _digest("\n".join(request))
            self._labels += _digest(exchange.label)
        self.exchanges += len(exchanges)
        self.conversations += bool(exchanges)
        return bool(exchanges)

    def close(self) -> None:
        """Finish the last document."""
        if self._open is not None:
            self._keys += self._open[1].digest()
            self._open = None

    def mark(self) -> tuple[int, int, int]:
        """Position for `rollback`; call after `close`."""
        return self.documents, self.conversations, self.exchanges

    def rollback(self, mark: tuple[int, int, int]) -> None:
        """Drop everything after `mark`."""
        self._open = None
        self.documents, self.conversations, self.exchanges = mark
        entries = self.documents + self.exchanges
        self._names.rollback(entries)
        self._groups.rollback(self.exchanges)
        del self._keys[DIGEST * entries :]
        del self._labels[DIGEST * self.exchanges :]

    def arrays(
        self, skipped: int, bad_parts: list[int], notes: Mapping[str, list[str]]
    ) -> dict[str, np.ndarray]:
        """Arrays of Index. Nothing can be added afterwards."""
        keys, labels = (np.frombuffer(d, f"S{DIGEST}") for d in (self._keys, self._labels))
        names, name_ends = self._names.arrays()
        groups, group_ends = self._groups.arrays()
        return {
            "is_text": np.array([self.documents > 0]),
            "skipped": np.array([skipped]),
            "bad_parts": np.array(bad_parts, dtype=np.int64),
            "kept": np.sort(np.unique(keys, return_index=True)[1]),  # first of equal ones
            "labels": np.unique(labels, return_inverse=True)[1].reshape(-1),
            "names": names,
            "name_ends": name_ends,
            "groups": groups,
            "group_ends": group_ends,
            "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8),
        }


class _Fingerprint:
    """Digest of a normalized text that comes in parts."""

    def __init__(self) -> None:
        self._hash, self._is_empty = hashlib.sha256(), True

    def add(self, text: str) -> None:
        if normal := normalized(text):
            self._hash.update(normal.encode() if self._is_empty else b" " + normal.encode())
            self._is_empty = False

    def digest(self) -> bytes:
        return self._hash.digest()[:DIGEST]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:DIGEST]


def exchanges_in(conversation: Conversation) -> list[Exchange]:
    """One exchange per answer that is learned, with all turns before it."""
    turns = conversation.turns
    opening = normalized(next((t.text for t in turns if t.role == "user"), ""))
    group = conversation.group or hashlib.sha256(opening.encode()).hexdigest()[:16]
    label = conversation.label or opening
    return [
        Exchange(turns[:i], turn, group, label, conversation.where)
        for i, turn in enumerate(turns)
        if turn.role == "assistant" and i > 0 and turn.learned and turn.text.strip()
    ]


def normalized(text: str) -> str:
    """`text` in lower case with single spaces, for comparing requests."""
    return " ".join(text.lower().split())
