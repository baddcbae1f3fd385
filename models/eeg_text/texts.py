"""The sentences of all splits as tokens, and with which others each one is compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.base import SplitName
from models.eeg_text.tokenizer import Tokenizer

CANDIDATES = 24
"""Sentences among which the true one is to be found, itself counted."""


_JUDGED: tuple[SplitName, ...] = ("val", "test")


class Texts:
    """Tokens of every sentence, by its group."""

    def __init__(
        self,
        texts: Mapping[str, str],
        splits: Mapping[SplitName, Sequence[str]],
        tokenizer: Tokenizer,
        longest: int,
        seed: int,
    ) -> None:
        """`texts`: a sentence for each group. `longest`: the most tokens, the end counted."""
        self.tokenizer = tokenizer
        self.cut = 0
        """Sentences that were longer."""
        self._texts = dict(texts)
        self._tokens = {key: self._encode(text, longest) for key, text in texts.items()}
        self._table: dict[str, np.ndarray] = {}
        self._numbers: dict[str, int] = {}
        judged: list[SplitName] = [name for name in _JUDGED if splits.get(name)]
        self.candidate_count = min([CANDIDATES, *(len(splits[name]) for name in judged)])
        self.judged = max(len(splits[name]) for name in judged)
        """Sentences of the larger split that is judged."""
        self.steps = max(len(self._tokens[key]) for key in splits["train"]) - 1
        """Tokens of the longest training sentence, its end counted: what is written."""
        width = max(len(self._tokens[key]) for name in judged for key in splits[name])
        for name in judged:
            self._compare(list(splits[name]), width, seed)

    def _encode(self, text: str, longest: int) -> np.ndarray:
        tokenizer = self.tokenizer
        tokens = tokenizer.encode(text)
        self.cut += len(tokens) > longest - 1
        kept = [tokenizer.start, *tokens[: longest - 1], tokenizer.end]
        return np.array(kept, dtype=np.int64)

    def _compare(self, keys: list[str], width: int, seed: int) -> None:
        """Draw for each sentence of a split the others that it is compared with."""
        padded = np.full((len(keys), width), self.tokenizer.pad, dtype=np.int64)
        for row, key in zip(padded, keys, strict=True):
            row[: len(self._tokens[key])] = self._tokens[key]
        rng = np.random.default_rng([seed, len(keys)])
        for number, key in enumerate(keys):
            others = rng.permutation(len(keys))
            others = others[others != number][: self.candidate_count - 1]
            self._numbers[key] = number
            self._table[key] = padded[[number, *others]]

    @property
    def mean_length(self) -> float:
        """Mean over all sentences of their tokens, the end counted."""
        return sum(len(tokens) - 1 for tokens in self._tokens.values()) / len(self._tokens)

    def text(self, key: str) -> str:
        """The sentence of a group, as it was written."""
        return self._texts[key]

    def tokens(self, key: str) -> np.ndarray:
        """Start, tokens, end."""
        return self._tokens[key]

    def is_judged(self, key: str) -> bool:
        """Whether the sentence is validated or tested with."""
        return key in self._table

    def number(self, key: str) -> int:
        """Which of the sentences of its split it is; below `judged`."""
        return self._numbers[key]

    def candidates(self, key: str) -> np.ndarray:
        """Tokens [candidate, text] of the sentence itself, first, and of others of its split."""
        return self._table[key]
