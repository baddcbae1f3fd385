"""Tokens of a corpus: encoded once in batches, then read from the cache."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile
from models.common.data_files import progress
from models.language.readers.corpus import SMALL, VERSION, Corpus
from models.language.readers.records import Record
from models.language.tokenizer import Tokenizer, encode_exchanges, render

_BATCH, _BATCH_LETTERS = 256, 2**19
"""At most so many records are encoded at once, and not many more letters of them."""


class Encoded:
    """Numbered pieces of a long vector of tokens.

    Text: piece i is document i between start and end token. Conversations: piece 2i is exchange i up to its
    answer, piece 2i + 1 the answer with the end token. On disk the tokens are read, not mapped:
    mapped pages count as memory.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray, text_bytes: np.ndarray) -> None:
        """Piece i ends before position `ends[i]` and encodes `text_bytes[i]` bytes of UTF-8."""
        self.offsets = np.concatenate(([0], ends)).astype(np.int64)
        self.text_bytes = np.array(text_bytes)
        self._dtype, self._tokens, self._path = tokens.dtype, tokens, ""
        if isinstance(tokens, np.memmap) and len(tokens) > 0:
            assert tokens.filename is not None
            self._path, self._begin = os.fspath(tokens.filename), tokens.offset
            self._tokens = np.empty(0, tokens.dtype)

    def __len__(self) -> int:
        """The number of tokens."""
        return int(self.offsets[-1])

    @property
    def sizes(self) -> np.ndarray:
        """Number of tokens of each piece."""
        return np.diff(self.offsets)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens from `start` to `stop` (exclusive). Raises DataError if the file was truncated."""
        if not self._path:
            return self._tokens[start:stop]
        offset = self._begin + start * self._dtype.itemsize
        tokens = np.fromfile(self._path, self._dtype, stop - start, offset=offset)
        if len(tokens) < stop - start:
            fix = "delete this folder; the next start creates it again"
            raise DataError("the cached tokens are truncated", where=self._path, fix=fix)
        return tokens

    def piece(self, number: int) -> np.ndarray:
        """Tokens of a piece."""
        return self.read(int(self.offsets[number]), int(self.offsets[number + 1]))


def encode(corpus: Corpus, tokenizer: Tokenizer) -> Encoded:
    """Encode all of `corpus`.

    Reads the files once, or their cached tokens; writes the cache. Raises DataError if the files
    changed since they were indexed, or if the cache is not writable.
    """
    write, source = partial(_write, corpus, tokenizer), corpus.source
    if source.size <= SMALL:
        return Encoded(**cache.in_memory(write))
    made_from = {"version": VERSION, "files": source.stamp, "tokenizer": tokenizer.digest}
    return Encoded(**cache.streamed("language-tokens", made_from, write, source.size))


def _write(corpus: Corpus, tokenizer: Tokenizer, new: cache.Open) -> None:
    """Write the arrays of Encoded. Raises DataError if the files changed."""
    kind = np.uint16 if tokenizer.size <= 2**16 else np.uint32
    tokens, ends, text_bytes = ArrayFile(new("tokens"), kind), array("q"), array("q")
    for vector, size in _pieces(corpus, tokenizer):
        tokens.append(vector)
        ends.append(tokens.length)
        text_bytes.append(size)
    tokens.finish()
    np.save(new("ends"), np.frombuffer(ends, np.int64))
    np.save(new("text_bytes"), np.frombuffer(text_bytes, np.int64))
    corpus.check_unchanged()


def _pieces(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    """Tokens of each piece in order, and its bytes of text in UTF-8."""
    batch, letters, total = list[Record](), 0, 0
    with progress("tokenizing", len(corpus)) as show:
        for record in corpus.records():
            batch.append(record)
            letters += len(record.text) + sum(len(turn.text) for turn in record.before)
            if letters >= _BATCH_LETTERS or len(batch) == _BATCH:
                yield from _encode(batch, corpus.is_text, tokenizer)  # between two, Python sees a signal
                total += len(batch)
                show(total)
                batch, letters = [], 0
        yield from _encode(batch, corpus.is_text, tokenizer)


def _encode(batch: Sequence[Record], is_text: bool, tokenizer: Tokenizer) -> Iterator[tuple[np.ndarray, int]]:
    if is_text:
        vectors = tokenizer.encode_batch([record.text for record in batch])
        for record, vector in zip(batch, vectors, strict=True):
            ends = np.array([tokenizer.first, tokenizer.end], vector.dtype)
            yield np.insert(ends, 1, vector), len(record.text.encode())
        return
    rendered = []
    for record in batch:
        try:
            rendered.append(render(record.before, record.text, tokenizer))
        except DataError as error:
            error.where += f" ({record.where})"
            raise
    for record, (prompt, answer) in zip(batch, encode_exchanges(rendered, tokenizer), strict=True):
        yield prompt, 0
        yield answer, len(record.text.encode())
