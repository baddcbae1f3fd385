"""Documents laid end to end and cut into rows of one length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.base import Draws
from models.language.records import Document
from models.language.rows import Row
from models.language.tokenizer import Tokenizer


class Windows:
    """Rows of `length` tokens that hold each token of each document once, as input and as label.

    A document is its start token and its text; its labels are its text and the end token. A row
    may hold the end of one document and the start of the next; with `whole` it never does, and
    the last row of a document is short. With `noise`, seeds, the labels of each row are shuffled:
    only how often each token occurs is left.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        tokenizer: Tokenizer,
        length: int,
        *,
        whole: bool = False,
        noise: Sequence[int] | None = None,
    ) -> None:
        self.length, self.noise = length, noise
        self.end = tokenizer.end
        self.start = tokenizer.end if tokenizer.start is None else tokenizer.start
        encoded = [tokenizer.encode(d.text) for d in documents]
        sizes = np.array([len(e) + 1 for e in encoded], dtype=np.int64)
        self.starts = np.concatenate(([0], sizes.cumsum()))
        self.text_bytes = np.array([len(d.text.encode()) for d in documents], dtype=np.int64)
        self.names = [d.group for d in documents]
        kind = np.uint16 if tokenizer.size <= 2**16 else np.uint32
        self.stream = np.empty(int(sizes.sum()), dtype=kind)
        for at, tokens in zip(self.starts[:-1], encoded, strict=True):
            self.stream[at] = self.start
            self.stream[at + 1 : at + 1 + len(tokens)] = tokens
        self.rows = self._cut_whole() if whole else self._cut()

    @property
    def tokens(self) -> int:
        """Labels of all rows."""
        return len(self.stream)

    def label_counts(self, size: int) -> np.ndarray:
        """How often each of `size` tokens is a label, over all rows."""
        counts = np.bincount(self.stream, minlength=size)
        counts[self.start] -= len(self.names)
        counts[self.end] += len(self.names)
        return counts

    def _cut(self) -> np.ndarray:
        edges = np.append(np.arange(0, len(self.stream), self.length), len(self.stream))
        return np.stack((edges[:-1], edges[1:]), axis=1)

    def _cut_whole(self) -> np.ndarray:
        pairs = [
            (at, min(at + self.length, stop))
            for begin, stop in zip(self.starts[:-1], self.starts[1:], strict=True)
            for at in range(begin, stop, self.length)
        ]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.rows)

    def sample(self, index: int, draws: Draws) -> Row:
        """The row at `index`; nothing in it is drawn."""
        return self.row(index)

    def row(self, index: int) -> Row:
        """The row at `index`."""
        low, high = map(int, self.rows[index])
        first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
        inner = self.starts[first + 1 : last + 1] - low
        inputs = self.stream[low:high].astype(np.int64)
        labels = np.empty_like(inputs)
        labels[:-1] = inputs[1:]
        labels[inner - 1] = self.end
        labels[-1] = self.end if high == self.starts[last + 1] else self.stream[high]
        documents = None
        if self.noise is not None:
            np.random.default_rng((*self.noise, index)).shuffle(labels)
            inputs[1:] = labels[:-1]
        elif len(inner):
            documents = np.searchsorted(inner, np.arange(high - low), side="right")
        text_bytes = self._bytes(low, high, int(first), int(last))
        return Row(inputs, labels, text_bytes, self.names[first], documents)

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
