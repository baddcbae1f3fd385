"""Documents laid end to end and cut into rows of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from models.base import Draws
from models.language.rows import Row
from models.language.text.packed import Texts
from models.language.tokens.encoded import Encoded
from models.language.tokens.tokenizer import Tokenizer

_AT_ONCE = 1 << 20
"""Tokens that are counted together."""


class Windows:
    """Rows of `length` tokens that hold each token of each document once, as input and as label.

    A document is its start token and its text; its labels are its text and the end token. A row
    may hold the end of one document and the start of the next; with `whole` it never does, and
    the last row of a document is short. With `noise`, seeds, the labels of each row are shuffled:
    only how often each token occurs is left.
    """

    def __init__(
        self,
        encoded: Encoded,
        names: Texts,
        documents: np.ndarray,
        tokenizer: Tokenizer,
        length: int,
        *,
        whole: bool = False,
        noise: Sequence[int] | None = None,
    ) -> None:
        """`documents` numbers those of `encoded` that are laid end to end, and their `names`."""
        self.length, self.noise = length, noise
        self.end = tokenizer.end
        self.start = tokenizer.end if tokenizer.start is None else tokenizer.start
        self._encoded, self._names, self._documents = encoded, names, documents
        sizes = encoded.sizes[documents]
        self.starts = np.concatenate(([0], sizes.cumsum()))
        self.text_bytes = encoded.text_bytes[documents]
        # Rows before each document, where a row holds one document only.
        rows = -(-sizes // length)
        self._rows_before = np.concatenate(([0], rows.cumsum())) if whole else None

    @property
    def tokens(self) -> int:
        """Labels of all rows."""
        return int(self.starts[-1])

    def label_counts(self, size: int) -> np.ndarray:
        """How often each of `size` tokens is a label, over all rows."""
        counts = np.zeros(size, dtype=np.int64)
        for low in range(0, self.tokens, _AT_ONCE):
            tokens = self._tokens(low, min(low + _AT_ONCE, self.tokens))
            counts += np.bincount(tokens, minlength=size)
        counts[self.start] -= len(self._documents)
        counts[self.end] += len(self._documents)
        return counts

    def __len__(self) -> int:
        if self._rows_before is not None:
            return int(self._rows_before[-1])
        return -(-self.tokens // self.length)

    def _edges(self, index: int) -> tuple[int, int]:
        """The positions between which a row lies."""
        begin, stop, row = 0, self.tokens, index
        if self._rows_before is not None:
            document = np.searchsorted(self._rows_before, index, side="right") - 1
            begin, stop = map(int, self.starts[document : document + 2])
            row = index - int(self._rows_before[document])
        low = begin + row * self.length
        return low, min(low + self.length, stop)

    def _tokens(self, low: int, high: int) -> np.ndarray:
        """The tokens at positions low to high, int64."""
        return np.concatenate(list(self._pieces(low, high))).astype(np.int64)

    def _pieces(self, low: int, high: int) -> Iterator[np.ndarray]:
        first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
        for i in range(first, last + 1):
            begin, stop = max(low, int(self.starts[i])), min(high, int(self.starts[i + 1]))
            shift = int(self._encoded.places[self._documents[i]]) - int(self.starts[i])
            yield self._encoded.stream.read(begin + shift, stop + shift)

    def sample(self, index: int, draws: Draws) -> Row:
        """The row at `index`; nothing in it is drawn."""
        return self.row(index)

    def row(self, index: int) -> Row:
        """The row at `index`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        low, high = self._edges(index)
        first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
        inner = self.starts[first + 1 : last + 1] - low
        # One more than the row: the last label, unless a document ends there.
        ends = high == self.starts[last + 1]
        tokens = self._tokens(low, high if ends else high + 1)
        inputs, labels = tokens[: high - low], tokens[1:]
        if ends:
            labels = np.append(labels, self.end)
        labels = labels.copy()
        labels[inner - 1] = self.end
        documents = None
        if self.noise is not None:
            np.random.default_rng((*self.noise, index)).shuffle(labels)
            inputs[1:] = labels[:-1]
        elif len(inner):
            documents = np.searchsorted(inner, np.arange(high - low), side="right")
        text_bytes = self._bytes(low, high, int(first), int(last))
        return Row(inputs, labels, text_bytes, self._names[self._documents[first]], documents)

    def _bytes(self, low: int, high: int, first: int, last: int) -> int:
        """The bytes of stream positions low to high.

        A document's bytes are laid evenly over its tokens and rounded down where it is cut, so that
        the rows of a split add up to the bytes of its documents exactly, whatever the tokenizer.
        """
        begin, stop = self.starts[first : last + 1], self.starts[first + 1 : last + 2]
        size, held = stop - begin, self.text_bytes[first : last + 1]
        until = (np.minimum(high, stop) - begin) * held // size
        before = (np.maximum(low, begin) - begin) * held // size
        return int((until - before).sum())
