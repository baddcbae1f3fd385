"""Tokens of a corpus: encoded once in batches, then read from the cache."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from functools import partial
from itertools import chain, count, groupby
from typing import NamedTuple

import numpy as np

from gearshift.models.base import DataError
from gearshift.models.common import array_file
from gearshift.models.common.array_file import ArrayFile
from gearshift.models.common.data_reports import progress
from gearshift.models.language.readers.corpus import SMALL, VERSION, Corpus
from gearshift.models.language.readers.records import Record
from gearshift.models.language.tokenizer import Tokenizer

_BATCH = 256
_SAMPLED = 8
_BATCH_LETTERS = 2**19
"""At most so many texts or conversations are encoded at once, and not many more letters of them."""


Chats = list[list[Record]]
"""Texts, one each; or the records of conversations."""


class _Piece(NamedTuple):
    tokens: np.ndarray
    text_bytes: int
    """Bytes of text in UTF-8."""
    begins_row: bool = False


class Encoded:
    """Numbered pieces of a long vector of tokens.

    Text: piece i is document i between start and end token. Conversations: piece 2i is what is
    before answer i in its row and after the answer before it, piece 2i + 1 the answer with what
    ends it; a row is a conversation, or the turns up to one answer where a template changes earlier
    turns. On disk the tokens are read, not mapped: mapped pages count as memory.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        ends: np.ndarray,
        text_bytes: np.ndarray,
        begins_row: np.ndarray,
    ) -> None:
        """Piece i ends before position `ends[i]` and encodes `text_bytes[i]` bytes of UTF-8."""
        self.offsets = np.append(0, ends).astype(np.int64)
        self.text_bytes = np.array(text_bytes)
        self.begins_row = np.array(begins_row)
        # Of a mapped file only the place is kept.
        self._dtype = tokens.dtype
        self._tokens = tokens
        self._path = ""
        if isinstance(tokens, np.memmap) and len(tokens) > 0:
            assert tokens.filename is not None
            self._path = os.fspath(tokens.filename)
            self._begin = tokens.offset
            self._tokens = np.empty(0, tokens.dtype)

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
            raise DataError(
                "the cached tokens are truncated",
                where=self._path,
                hint="delete this folder; the next start creates it again",
            )
        return tokens


def encode(corpus: Corpus, tokenizer: Tokenizer, *, estimates: bool = False) -> Encoded:
    """Encode all of `corpus`; `estimates`: of a small text only the sizes, see _estimated.

    Reads the files once, or their cached tokens; writes the cache. Raises DataError if the files
    changed since they were indexed, or if the cache is not writable.
    """
    write = partial(_write, corpus, tokenizer)
    source = corpus.source
    if source.size <= SMALL:
        if estimates and corpus.is_text:
            return _estimated(corpus, tokenizer)
        return Encoded(**array_file.in_memory(write))
    from gearshift.models.common import cache  # for large data

    made_from = {"version": VERSION, "files": source.stamp, "tokenizer": tokenizer.digest}
    return Encoded(**cache.streamed("language-tokens", made_from, write, source.size))


def _estimated(corpus: Corpus, tokenizer: Tokenizer) -> Encoded:
    """Tokens without values: as many for a byte as in every eighth document."""
    texts = [record.text for record in corpus.records()]
    text_bytes = np.array([len(text.encode()) for text in texts])
    tokens = sum(map(len, tokenizer.encode_batch(texts[::_SAMPLED])))
    share = tokens / max(text_bytes[::_SAMPLED].sum(), 1)
    sizes = np.rint(share * text_bytes).astype(np.int64) + 2  # between start and end token
    no_values = np.zeros(sizes.sum(), tokenizer.dtype)
    return Encoded(no_values, sizes.cumsum(), text_bytes, np.zeros(len(texts), np.bool_))


def _write(corpus: Corpus, tokenizer: Tokenizer, new: array_file.Open) -> None:
    """Write the arrays of Encoded. Raises DataError if the files changed."""
    tokens = ArrayFile(new("tokens"), tokenizer.dtype)
    ends = array("q")
    text_bytes = array("q")
    begins_row = array("b")
    for piece in _pieces(corpus, tokenizer):
        tokens.append(piece.tokens)
        ends.append(tokens.length)
        text_bytes.append(piece.text_bytes)
        begins_row.append(piece.begins_row)
    tokens.finish()
    np.save(new("ends"), np.frombuffer(ends, np.int64))
    np.save(new("text_bytes"), np.frombuffer(text_bytes, np.int64))
    np.save(new("begins_row"), np.frombuffer(begins_row, np.bool_))
    corpus.check_unchanged()


def _pieces(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[_Piece]:
    """The pieces of each record in order."""
    encode = _documents if corpus.is_text else _exchanges
    batch: Chats = []
    letters = 0
    total = 0
    with progress("tokenizing", len(corpus)) as show:
        for chat in _chats(corpus):
            batch.append(chat)
            last = chat[-1]
            letters += len(last.text) + sum(len(turn.text) for turn in last.before)
            if letters >= _BATCH_LETTERS or len(batch) == _BATCH:
                yield from encode(batch, tokenizer)  # between two, Python sees a signal
                total += sum(map(len, batch))
                show(total)
                batch = []
                letters = 0
        yield from encode(batch, tokenizer)


def _chats(corpus: Corpus) -> Iterator[list[Record]]:
    """Each text, or the records of each conversation."""
    numbers = count()
    for _, records in groupby(corpus.records(), lambda record: record.turns or next(numbers)):
        yield list(records)


def _documents(batch: Chats, tokenizer: Tokenizer) -> Iterator[_Piece]:
    texts = [record.text for [record] in batch]
    for text, vector in zip(texts, tokenizer.encode_batch(texts), strict=True):
        ends = np.array([tokenizer.first, tokenizer.end], vector.dtype)
        yield _Piece(np.insert(ends, 1, vector), len(text.encode()))


def _exchanges(batch: Chats, tokenizer: Tokenizer) -> Iterator[_Piece]:
    exchanges = tokenizer.encode_chats(batch)
    for record, exchange in zip(chain.from_iterable(batch), exchanges, strict=True):
        yield _Piece(exchange.before, 0, exchange.begins_row)
        yield _Piece(exchange.answer, len(record.text.encode()))
