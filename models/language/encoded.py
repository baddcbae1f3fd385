"""Tokens of a corpus: encoded once in batches, then read from the cache."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.cache import ArrayFile
from models.common.data_files import progress
from models.language.readers.corpus import SMALL, VERSION, Corpus
from models.language.readers.records import Document, Exchange
from models.language.tokenizer import Tokenizer, rendered, with_ends

_BATCH, _BATCH_LETTERS = 256, 2**19
"""At most so many documents or exchanges are encoded at once, and not many more letters of them."""


class TokenStream:
    """Long vector of tokens. On disk it is read, not mapped: mapped pages count as memory."""

    def __init__(self, tokens: np.ndarray) -> None:
        """`tokens`: in memory, or a whole .npy file, mapped by numpy."""
        self._dtype, self._length, self._tokens = tokens.dtype, len(tokens), None
        if isinstance(tokens, np.memmap) and len(tokens) > 0:
            assert tokens.filename is not None
            self._path, self._offset = os.fspath(tokens.filename), tokens.offset
        else:
            self._tokens = tokens

    def __len__(self) -> int:
        return self._length

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens from `start` to `stop` (exclusive). Raises DataError if the file was truncated."""
        if self._tokens is not None:
            return self._tokens[start:stop]
        offset = self._offset + start * self._dtype.itemsize
        tokens = np.fromfile(self._path, self._dtype, stop - start, offset=offset)
        if len(tokens) < stop - start:
            raise DataError(
                "the cached tokens are truncated",
                where=self._path,
                fix="delete this folder; the next start creates it again",
            )
        return tokens


class Encoded:
    """Numbered pieces of tokens.

    Text: piece i is the start token and document i. Conversations: piece 2i is exchange i up to its
    answer, piece 2i + 1 the answer with the end token.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray, text_bytes: np.ndarray) -> None:
        """Piece i ends before position `ends[i]` and encodes `text_bytes[i]` bytes of UTF-8."""
        self.stream = TokenStream(tokens)
        self.offsets = np.concatenate(([0], ends)).astype(np.int64)
        self.text_bytes = np.array(text_bytes)

    @property
    def sizes(self) -> np.ndarray:
        """Number of tokens of each piece."""
        return np.diff(self.offsets)

    def piece(self, number: int) -> np.ndarray:
        """Tokens of a piece."""
        return self.stream.read(int(self.offsets[number]), int(self.offsets[number + 1]))


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
    batch, letters, total = list[Document | Exchange](), 0, 0
    is_quiet = corpus.source.size <= SMALL
    with nullcontext(lambda done: None) if is_quiet else progress("tokenizing", len(corpus)) as show:
        for item in corpus.records():
            batch.append(item)
            texts = [item] if isinstance(item, Document) else [*item.before, item.reply]
            letters += sum(len(text.text) for text in texts)
            if letters >= _BATCH_LETTERS or len(batch) == _BATCH:
                yield from _encode_batch(tokenizer, batch)  # between two, Python sees a signal
                total += len(batch)
                show(total)
                batch, letters = [], 0
        yield from _encode_batch(tokenizer, batch)


def _encode_batch(
    tokenizer: Tokenizer, batch: Sequence[Document | Exchange]
) -> Iterator[tuple[np.ndarray, int]]:
    texts, has_start = list[str](), list[bool]()
    for item in batch:
        if isinstance(item, Document):
            texts.append(item.text)
            continue
        try:
            prompt, answer, starts = rendered(item.before, item.reply, tokenizer)
        except DataError as error:
            error.where += f" ({item.where})"
            raise
        texts += (prompt, answer)
        has_start.append(starts)
    vectors, starting = iter(tokenizer.encode_batch(texts)), iter(has_start)
    start = tokenizer.end if tokenizer.start is None else tokenizer.start
    for item in batch:
        if isinstance(item, Document):
            vector = next(vectors)
            yield np.append(np.array(start, vector.dtype), vector), len(item.text.encode())
        else:
            before, reply = with_ends(next(vectors), next(vectors), tokenizer, next(starting))
            yield before, 0
            yield reply, len(item.answer.encode())
