"""What a sample is, and how samples become a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.base import DataError, Draws
from models.common.data_files import BadRecords, OnBad
from models.language.head import IGNORE
from models.language.readers.index import Texts
from models.language.tokens.encoded import Encoded
from models.language.tokens.tokenizer import Tokenizer

MULTIPLE = 8
"""Rows of unequal length are padded to a multiple of this: the tile of tensor cores."""


@dataclass(frozen=True)
class Row:
    """One sample: tokens, and after each the token to predict or IGNORE; both int64 [time]."""

    inputs: np.ndarray
    labels: np.ndarray
    text_bytes: int
    """UTF-8 bytes of the text that the labels stand for."""
    name: str
    """The document or conversation it is from."""
    documents: np.ndarray | None = None
    """The number of each token's document within the row; None: they are all of one."""
    matched: bool = False
    """In a noise control: the true answer, only measured for comparison."""


def collate(rows: Sequence[Row], pad: int, length: int | None) -> dict[str, Any]:
    """A batch of `rows`, padded at the end to `length`, or to the longest, in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `documents` likewise,
    or None if no row holds more than one; `text_bytes` int64 and `matched` bool, [batch]; `units`,
    the number of labels; `meta`, the name of each row's source.
    """
    longest = max(len(row.inputs) for row in rows)
    time = length or -(-longest // MULTIPLE) * MULTIPLE
    inputs = np.full((len(rows), time), pad, dtype=np.int64)
    labels = np.full((len(rows), time), IGNORE, dtype=np.int64)
    valid = np.zeros((len(rows), time), dtype=bool)
    documents = np.zeros((len(rows), time), dtype=np.int64)
    for i, row in enumerate(rows):
        n = len(row.inputs)
        inputs[i, :n], labels[i, :n], valid[i, :n] = row.inputs, row.labels, True
        if row.documents is not None:
            documents[i, :n] = row.documents
    packed = any(row.documents is not None for row in rows)
    return {
        "input_ids": torch.from_numpy(inputs),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(valid),
        "documents": torch.from_numpy(documents) if packed else None,
        "text_bytes": torch.tensor([row.text_bytes for row in rows]),
        "matched": torch.tensor([row.matched for row in rows]),
        "units": int((labels != IGNORE).sum()),
        "meta": [row.name for row in rows],
    }


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


@dataclass(frozen=True)
class Pairing:
    """Which request is followed by which answer: numbers of exchanges, one entry a row."""

    requests: np.ndarray
    answers: np.ndarray
    matched: np.ndarray
    """Whether, in a noise control, the answer is the true one, measured only for comparison."""


def as_they_are(exchanges: np.ndarray) -> Pairing:
    """Each request with its own answer."""
    return Pairing(exchanges, exchanges, np.zeros(len(exchanges), dtype=bool))


class Dialogues:
    """One row for each pair; the loss sees the answer and the end token only.

    A prompt that is too long loses its oldest tokens but for the first one; an answer is never
    cut: a pair whose answer does not fit in `length` is a bad row.
    """

    def __init__(
        self, encoded: Encoded, names: Texts, pairing: Pairing, length: int, on_bad: OnBad
    ) -> None:
        """`names` tells where each request is from.

        Raises DataError if an answer does not fit and `on_bad` is stop.
        """
        self._encoded, self._names = encoded, names
        sizes = encoded.sizes
        prompts, said = sizes[2 * pairing.requests], sizes[2 * pairing.answers + 1]
        # The last token is only predicted; at least one of the prompt must remain.
        room = length + 1 - said
        faults = BadRecords()
        for i in np.flatnonzero(room < 1):
            faults.add(
                names[pairing.requests[i]],
                f"the answer has {said[i]} tokens; data.seq_len {length} fits {length}",
            )
        fits = room >= 1
        self.skipped = faults.finish(on_bad, int(fits.sum()))
        if len(fits) and not fits.any():
            raise DataError(
                f"no answer fits in data.seq_len {length}",
                where="data.seq_len",
                fix="--set data.seq_len=N with a larger N",
            )
        self.truncated = int((fits & (prompts > room) & ~pairing.matched).sum())
        self._requests, self._answers = pairing.requests[fits], pairing.answers[fits]
        self._matched = pairing.matched[fits]
        self.prompt_sizes = np.minimum(prompts, room)[fits]
        """Tokens of each row before its answer."""
        self.answer_sizes = said[fits]
        """Tokens of each answer, its end token among them."""

    @property
    def tokens(self) -> int:
        """Labels of all rows."""
        return int(self.answer_sizes.sum())

    def __len__(self) -> int:
        return len(self._requests)

    def prompt(self, index: int) -> np.ndarray:
        """The tokens of a row before its answer."""
        whole = self._encoded.piece(2 * self._requests[index])
        left = int(self.prompt_sizes[index])
        return np.concatenate((whole[:1], whole[len(whole) - left + 1 :]))

    def answer(self, index: int) -> np.ndarray:
        """The tokens of the answer of a row, with the end token."""
        return self._encoded.piece(2 * self._answers[index] + 1)

    def sample(self, index: int, draws: Draws) -> Row:
        """The row at `index`; nothing in it is drawn."""
        return self.row(index)

    def row(self, index: int) -> Row:
        """The row at `index`."""
        prompt, said = self.prompt(index), self.answer(index)
        tokens = np.concatenate((prompt, said)).astype(np.int64)
        labels = tokens[1:].copy()
        labels[: len(prompt) - 1] = IGNORE
        return Row(
            inputs=tokens[:-1],
            labels=labels,
            text_bytes=int(self._encoded.text_bytes[2 * self._answers[index] + 1]),
            name=self._names[self._requests[index]],
            matched=bool(self._matched[index]),
        )
