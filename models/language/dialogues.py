"""Exchanges as rows: the text form, and labels on the answer alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.base import DataError, Draws
from models.common.faults import Faults, OnBad
from models.language.head import IGNORE
from models.language.records import Exchange, Turn
from models.language.rows import Row
from models.language.tokenizer import Tokenizer

_FORMS = {
    "system": "<system>{}</system>\n",
    "user": "User: {}\n",
    "assistant": "Assistant: {}\n",
    "tool": "<output>{}</output>\n",
}


def prompt_and_answer(
    before: Sequence[Turn], answer: str, tokenizer: Tokenizer
) -> tuple[np.ndarray, np.ndarray]:
    """The tokens up to the answer, and those of the answer with the end token.

    The form is that of the tokenizer's chat template, or `User: {request}\\nAssistant: {answer}`.
    """
    if form := tokenizer.template(before, answer):
        prompt, said = map(tokenizer.encode, form)
    else:
        text = "".join(_FORMS[t.role].format(t.text.strip()) for t in before) + "Assistant:"
        # A blank that is a token of its own belongs to the prompt: it is no part of the answer.
        blank_first, blank_last = ("", " ") if tokenizer.blank_leads else (" ", "")
        prompt = tokenizer.encode(text + blank_first)
        said = tokenizer.encode(blank_last + answer)
        if tokenizer.start is not None:
            prompt = np.concatenate(([tokenizer.start], prompt)).astype(prompt.dtype)
    if len(said) == 0 or said[-1] != tokenizer.end:
        said = np.append(said, np.array(tokenizer.end, dtype=prompt.dtype))
    return prompt, said


class Dialogues:
    """One row for each exchange; the loss sees the answer and the end token only.

    A prompt that is too long loses its oldest tokens but for the first one; an answer is never
    cut: an exchange whose answer does not fit in `length` is a bad row.
    """

    def __init__(
        self, exchanges: Sequence[Exchange], tokenizer: Tokenizer, length: int, on_bad: OnBad
    ) -> None:
        """Raises DataError if an answer does not fit and `on_bad` is stop."""
        self.truncated = 0
        self.kept: list[tuple[Exchange, np.ndarray, int]] = []
        faults = Faults()
        for exchange in exchanges:
            prompt, said = prompt_and_answer(exchange.before, exchange.answer, tokenizer)
            # The last token is only predicted; at least one of the prompt must remain.
            room = length + 1 - len(said)
            if room < 1:
                faults.add(
                    exchange.where,
                    f"the answer has {len(said)} tokens; data.seq_len {length} fits {length}",
                )
                continue
            if len(prompt) > room:
                self.truncated += not exchange.matched
                prompt = np.concatenate((prompt[:1], prompt[len(prompt) - room + 1 :]))
            tokens = np.concatenate((prompt, said))
            self.kept.append((exchange, tokens, len(prompt)))
        self.skipped = faults.settle(on_bad, len(self.kept))
        if exchanges and not self.kept:
            raise DataError(
                f"no answer fits in data.seq_len {length}",
                where="data.seq_len",
                mend="--set data.seq_len=N with a larger N",
            )

    @property
    def tokens(self) -> int:
        """Labels of all rows."""
        return sum(len(tokens) - cut for _, tokens, cut in self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def sample(self, index: int, draws: Draws) -> Row:
        """The row at `index`; nothing in it is drawn."""
        exchange, tokens, cut = self.kept[index]
        labels = tokens[1:].astype(np.int64)
        labels[: cut - 1] = IGNORE
        return Row(
            inputs=tokens[:-1].astype(np.int64),
            labels=labels,
            text_bytes=len(exchange.answer.encode()),
            name=exchange.where,
            matched=exchange.matched,
        )
