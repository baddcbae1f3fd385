"""Samples: rows of packed text or of one conversation, and their collation into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.base import DataError, Draws
from models.common.data_files import BadRecords, OnBad
from models.language.encoded import Encoded
from models.language.head import IGNORE
from models.language.readers.corpus import text_of
from models.language.tokenizer import Tokenizer

MULTIPLE = 8
"""Rows of unequal length are padded to a multiple of this, the tile of tensor cores."""


@dataclass(frozen=True)
class Row:
    """One sample: `inputs` and, for each, the next token or IGNORE in `labels`; int64 [time]."""

    inputs: np.ndarray
    labels: np.ndarray
    text_bytes: int
    """UTF-8 bytes of the text of the labels."""
    name: str
    """Name of the document or conversation."""
    documents: np.ndarray | None = None
    """Index of each token's document within the row; None: one document."""
    matched: bool = False
    """In a noise control: the answer is the true one, evaluated for comparison only."""


def collate(rows: Sequence[Row], pad: int, length: int | None) -> dict[str, Any]:
    """Collate `rows`, padded at the end to `length`, or to the longest in multiples of 8.

    `input_ids`, `labels` int64 and `attention_mask` bool, each [batch, time]; `boundaries` int32,
    for Transformer.forward, where padding belongs to the last document of its row; `text_bytes`
    int64 and `matched` bool, [batch]; `units`, the number of labels; `meta`, the name of each
    row's source.
    """
    longest = max(len(row.inputs) for row in rows)
    time = length or -(-longest // MULTIPLE) * MULTIPLE
    inputs = np.full((len(rows), time), pad, dtype=np.int64)
    labels = np.full((len(rows), time), IGNORE, dtype=np.int64)
    valid = np.zeros((len(rows), time), dtype=bool)
    boundaries = []
    for i, row in enumerate(rows):
        n = len(row.inputs)
        inputs[i, :n], labels[i, :n], valid[i, :n] = row.inputs, row.labels, True
        boundaries.append(i * time)
        if row.documents is not None:
            boundaries.extend(i * time + 1 + np.flatnonzero(np.diff(row.documents)))
    boundaries.append(len(rows) * time)
    return {
        "input_ids": torch.from_numpy(inputs),
        "labels": torch.from_numpy(labels),
        "attention_mask": torch.from_numpy(valid),
        "boundaries": torch.from_numpy(np.array(boundaries, dtype=np.int32)),
        "text_bytes": torch.tensor([row.text_bytes for row in rows]),
        "matched": torch.tensor([row.matched for row in rows]),
        "units": int((labels != IGNORE).sum()),
        "meta": [row.name for row in rows],
    }


_COUNT_CHUNK = 1 << 20
"""Tokens counted at one time."""


class TokenWindows:
    """Rows of `length` tokens from documents laid end to end; each token is an input and a label.

    The inputs of a document are the start token and its text, its labels are the text and the end
    token. A row may hold the end of one document and the start of the next; with
    `single_document` it never does, and the last row of a document is short. With `noise` (seeds)
    the labels of each row are shuffled, which leaves only token frequencies.
    """

    def __init__(
        self,
        encoded: Encoded,
        names: np.ndarray,
        documents: np.ndarray,
        tokenizer: Tokenizer,
        length: int,
        *,
        single_document: bool = False,
        noise: Sequence[int] | None = None,
    ) -> None:
        """`documents` selects documents of `encoded`; `names` holds the name of each."""
        self.length, self.noise = length, noise
        self.end = tokenizer.end
        self.start = tokenizer.end if tokenizer.start is None else tokenizer.start
        self._encoded, self._names, self._documents = encoded, names, documents
        sizes = encoded.sizes[documents]
        self.starts = np.concatenate(([0], sizes.cumsum()))
        self.text_bytes = encoded.text_bytes[documents]
        # Rows before each document if a row holds a single document.
        rows = -(-sizes // length)
        self._rows_before = np.concatenate(([0], rows.cumsum())) if single_document else None

    @property
    def tokens(self) -> int:
        return int(self.starts[-1])

    def label_counts(self, size: int) -> np.ndarray:
        """How often each of `size` token ids is a label, over all rows."""
        counts = np.zeros(size, dtype=np.int64)
        for low in range(0, self.tokens, _COUNT_CHUNK):
            tokens = self._tokens(low, min(low + _COUNT_CHUNK, self.tokens))
            counts += np.bincount(tokens, minlength=size)
        counts[self.start] -= len(self._documents)
        counts[self.end] += len(self._documents)
        return counts

    def __len__(self) -> int:
        if self._rows_before is not None:
            return int(self._rows_before[-1])
        return -(-self.tokens // self.length)

    def _row_range(self, index: int) -> tuple[int, int]:
        begin, stop, row = 0, self.tokens, index
        if self._rows_before is not None:
            document = np.searchsorted(self._rows_before, index, side="right") - 1
            begin, stop = map(int, self.starts[document : document + 2])
            row = index - int(self._rows_before[document])
        low = begin + row * self.length
        return low, min(low + self.length, stop)

    def _tokens(self, low: int, high: int) -> np.ndarray:
        """Tokens at stream positions low to high, int64."""
        return np.concatenate(list(self._pieces(low, high))).astype(np.int64)

    def _pieces(self, low: int, high: int) -> Iterator[np.ndarray]:
        first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
        for i in range(first, last + 1):
            begin, stop = max(low, int(self.starts[i])), min(high, int(self.starts[i + 1]))
            shift = int(self._encoded.offsets[self._documents[i]]) - int(self.starts[i])
            yield self._encoded.stream.read(begin + shift, stop + shift)

    def sample(self, index: int, draws: Draws) -> Row:
        return self.row(index)

    def row(self, index: int) -> Row:
        """Row `index`."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        low, high = self._row_range(index)
        first, last = np.searchsorted(self.starts, (low, high - 1), side="right") - 1
        inner = self.starts[first + 1 : last + 1] - low
        # One token more than the row holds, for its last label, unless a document ends there.
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
        return Row(inputs, labels, text_bytes, text_of(self._names[self._documents[first]]), documents)

    def _bytes(self, low: int, high: int, first: int, last: int) -> int:
        """UTF-8 bytes of stream positions low to high.

        A document's bytes are spread evenly over its tokens and rounded down at cuts, so that the
        rows of a split add up to the exact bytes of its documents for any tokenizer.
        """
        begin, stop = self.starts[first : last + 1], self.starts[first + 1 : last + 2]
        size, total = stop - begin, self.text_bytes[first : last + 1]
        until = (np.minimum(high, stop) - begin) * total // size
        before = (np.maximum(low, begin) - begin) * total // size
        return int((until - before).sum())


@dataclass(frozen=True)
class Pairing:
    """Request and answer of each row, as exchange numbers."""

    requests: np.ndarray
    answers: np.ndarray
    matched: np.ndarray
    """In a noise control: whether the answer is the true one, evaluated for comparison only."""


def true_pairing(exchanges: np.ndarray) -> Pairing:
    """Pair each request with its own answer."""
    return Pairing(exchanges, exchanges, np.zeros(len(exchanges), dtype=bool))


def fitting_length(sizes: np.ndarray, longest: int | None) -> int | None:
    """The tokens per sample that all answers fit, and all requests unless they double it.

    `sizes`: the tokens of each request and its answer, in turns. `longest`: the length that the
    model allows; None is returned if an answer does not fit it.
    """
    prompts, answers = sizes[::2], sizes[1::2]
    least = int(answers.max())
    whole = -(-int((prompts + answers).max() - 1) // MULTIPLE) * MULTIPLE
    if longest is not None:
        whole = min(whole, longest)
    if longest is not None and least > longest:
        return None
    return max(least, whole if whole <= 2 * least else -(-least // MULTIPLE) * MULTIPLE)


class Dialogues:
    """One row for each pair of request and answer; labels are the answer and the end token.

    A long prompt keeps its first token and loses the oldest others. An answer is never cut: a pair
    with an answer longer than `length` is a bad row.
    """

    def __init__(
        self,
        encoded: Encoded,
        names: np.ndarray,
        pairing: Pairing,
        length: int,
        on_bad: OnBad,
        longest: int | None = None,
    ) -> None:
        """`names` holds the source of each request; `longest`: the length the model allows.

        Raises DataError if an answer does not fit and `on_bad` is stop.
        """
        self._encoded, self._names = encoded, names
        sizes = encoded.sizes
        prompts, answers = sizes[2 * pairing.requests], sizes[2 * pairing.answers + 1]
        # The last token is only a label; at least one prompt token must remain.
        room = length + 1 - answers
        needed = fitting_length(sizes, longest)
        bad_records = BadRecords()
        if needed is not None:
            bad_records.fix = f"fit all:  --seq-len {needed}"
        for i in np.flatnonzero(room < 1):
            problem = f"the answer has {answers[i]} tokens; data.seq_len is {length}"
            bad_records.add(text_of(names[pairing.requests[i]]), problem)
        fits = room >= 1
        self.skipped = bad_records.finish(on_bad, int(fits.sum()))
        if len(fits) and not fits.any():
            raise DataError(
                f"every answer is longer than data.seq_len {length}",
                where="data.seq_len",
                allowed=f"answers of at most {longest} tokens, which the model allows"
                if needed is None
                else "",
                fix="" if needed is None else f"--seq-len {needed}",
            )
        is_cut = fits & (prompts > room) & ~pairing.matched
        self.truncated = int(is_cut.sum())
        tokens = int((prompts + answers)[is_cut].max(initial=1)) - 1
        self.whole_length = min(tokens, longest or tokens)
        """Tokens per sample that no prompt exceeds, up to the most that the model allows."""
        self._requests, self._answers = pairing.requests[fits], pairing.answers[fits]
        self._matched = pairing.matched[fits]
        self.prompt_sizes = np.minimum(prompts, room)[fits]
        """Prompt tokens of each row."""
        self.answer_sizes = answers[fits]
        """Answer tokens of each row, including the end token."""

    @property
    def tokens(self) -> int:
        return int(self.answer_sizes.sum())

    def __len__(self) -> int:
        return len(self._requests)

    def prompt(self, index: int) -> np.ndarray:
        """Prompt tokens of a row."""
        whole = self._encoded.piece(2 * self._requests[index])
        count = int(self.prompt_sizes[index])
        return np.concatenate((whole[:1], whole[len(whole) - count + 1 :]))

    def answer(self, index: int) -> np.ndarray:
        """Answer tokens of a row, including the end token."""
        return self._encoded.piece(2 * self._answers[index] + 1)

    def sample(self, index: int, draws: Draws) -> Row:
        return self.row(index)

    def row(self, index: int) -> Row:
        """Row `index`."""
        prompt, answer = self.prompt(index), self.answer(index)
        tokens = np.concatenate((prompt, answer)).astype(np.int64)
        labels = tokens[1:].copy()
        labels[: len(prompt) - 1] = IGNORE
        return Row(
            inputs=tokens[:-1],
            labels=labels,
            text_bytes=int(self._encoded.text_bytes[2 * self._answers[index] + 1]),
            name=text_of(self._names[self._requests[index]]),
            matched=bool(self._matched[index]),
        )
