"""The tokens of a whole corpus: made once, piece by piece, and read from the cache thereafter."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import partial

import numpy as np

from models.base import DataError
from models.common import cache
from models.common.array_file import ArrayFile
from models.language.text.corpus import SMALL, VERSION, Corpus
from models.language.tokens.text_form import prompt_and_answer
from models.language.tokens.token_stream import stream_of
from models.language.tokens.tokenizer import Tokenizer


class Encoded:
    """Pieces of tokens by number.

    Of text piece i is document i, its start token first. Of exchanges piece 2i is all of exchange i
    up to its answer, and piece 2i + 1 the answer with the end token.
    """

    def __init__(self, tokens: np.ndarray, ends: np.ndarray, text_bytes: np.ndarray) -> None:
        """Piece i ends before position `ends[i]` and stands for `text_bytes[i]` bytes of UTF-8."""
        self.stream = stream_of(tokens)
        self.places = np.concatenate(([0], ends)).astype(np.int64)
        self.text_bytes = np.array(text_bytes)

    @property
    def sizes(self) -> np.ndarray:
        """The tokens of each piece."""
        return np.diff(self.places)

    def piece(self, number: int) -> np.ndarray:
        """The tokens of a piece."""
        return self.stream.read(int(self.places[number]), int(self.places[number + 1]))


def encode(corpus: Corpus, tokenizer: Tokenizer) -> Encoded:
    """The tokens of all of `corpus`.

    Reads the files once, or of larger ones what the cache keeps, and writes there. Raises DataError
    if they changed since the index was made, or where the cache has no room.
    """
    write = partial(_write, corpus, tokenizer)
    source = corpus.source
    if source.size <= SMALL:
        return Encoded(**cache.in_memory(write))
    made_from = {"version": VERSION, "files": source.stamp, "tokenizer": tokenizer.digest}
    try:
        return Encoded(**cache.streamed("language-tokens", made_from, write))
    except OSError as error:
        raise _no_room(source.size, error) from None


def _no_room(size: int, error: OSError) -> DataError:
    return DataError(
        f"the tokens of the data cannot be kept: {error.strerror or error}",
        where=str(cache.folder()),
        allowed=f"a folder to write to, with room for about {2 * size / 1e9:.2g} GB",
        fix=f"name another one:  export {cache.VARIABLE}=FOLDER",
    )


def _write(corpus: Corpus, tokenizer: Tokenizer, new: cache.Open) -> None:
    """Write the arrays of Encoded. Raises DataError if the files are no longer the same."""
    kind = np.uint16 if tokenizer.size <= 2**16 else np.uint32
    tokens, ends, text_bytes = ArrayFile(new("tokens"), kind), array("q"), array("q")
    pieces = _documents(corpus, tokenizer) if corpus.is_text else _exchanges(corpus, tokenizer)
    for number, vector, size in pieces:
        if number == len(ends):
            ends.append(0)
            text_bytes.append(0)
        tokens.append(vector)
        ends[number] = tokens.length
        text_bytes[number] += size
    tokens.finish()
    for name, column in (("ends", ends), ("text_bytes", text_bytes)):
        file = ArrayFile(new(name), np.int64)
        file.append(np.frombuffer(column, np.int64))
        file.finish()
    corpus.check_unchanged()


def _documents(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, int]]:
    """Piece, tokens and bytes of each document, or of each part of a long one."""
    start = tokenizer.end if tokenizer.start is None else tokenizer.start
    last = -1
    for number, document in corpus.documents():
        vector = tokenizer.encode(document.text)
        if number != last:
            vector = np.concatenate(([start], vector))
            last = number
        yield number, vector, len(document.text.encode())


def _exchanges(corpus: Corpus, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, int]]:
    """Piece, tokens and bytes of what stands before each answer, and of the answer."""
    for number, exchange in corpus.exchanges():
        prompt, said = prompt_and_answer(exchange.before, exchange.answer, tokenizer)
        yield 2 * number, prompt, 0
        yield 2 * number + 1, said, len(exchange.answer.encode())
