"""Exchanges as rows, with labels on the answer alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.base import DataError, Draws
from models.common.faults import Faults, OnBad
from models.language.head import IGNORE
from models.language.rows import Row
from models.language.text.packed import Texts
from models.language.tokens.encoded import Encoded


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
        faults = Faults()
        for i in np.flatnonzero(room < 1):
            faults.add(
                names[pairing.requests[i]],
                f"the answer has {said[i]} tokens; data.seq_len {length} fits {length}",
            )
        fits = room >= 1
        self.skipped = faults.settle(on_bad, int(fits.sum()))
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
