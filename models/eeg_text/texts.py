"""The sentences of all splits as tokens, with the candidates each is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.base import SplitName
from models.eeg_text.tokenizer import Tokenizer

CANDIDATES = 24
"""Candidates for retrieval, including the true sentence."""


_EVALUATED: tuple[SplitName, ...] = ("val", "test")


class Texts:
    """Tokens and candidates of every sentence, by group."""

    def __init__(
        self,
        texts: Mapping[str, str],
        splits: Mapping[SplitName, Sequence[str]],
        tokenizer: Tokenizer,
        longest: int,
        seed: int,
    ) -> None:
        """`texts`: a sentence per group. `longest`: the most tokens, including the end token."""
        self.tokenizer = tokenizer
        self.cut = 0
        """Number of truncated sentences."""
        self._texts = dict(texts)
        self._tokens = {key: self._encode(text, longest) for key, text in texts.items()}
        self._table: dict[str, np.ndarray] = {}
        self._numbers: dict[str, int] = {}
        evaluated: list[SplitName] = [name for name in _EVALUATED if splits.get(name)]
        self.candidate_count = min([CANDIDATES, *(len(splits[name]) for name in evaluated)])
        self.num_evaluated = max(len(splits[name]) for name in evaluated)
        """Sentences of the larger of the evaluated splits."""
        self.steps = max(len(self._tokens[key]) for key in splits["train"]) - 1
        """Tokens to generate: those of the longest training sentence, including the end token."""
        width = max(len(self._tokens[key]) for name in evaluated for key in splits[name])
        for name in evaluated:
            self._compare(list(splits[name]), width, seed)

    def _encode(self, text: str, longest: int) -> np.ndarray:
        tokenizer = self.tokenizer
        tokens = tokenizer.encode(text)
        most = longest - len(tokenizer.suffix)
        self.cut += len(tokens) > most
        kept = [tokenizer.start, *tokens[:most], *tokenizer.suffix]
        return np.array(kept, dtype=np.int64)

    def _compare(self, keys: list[str], width: int, seed: int) -> None:
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
        """Mean number of tokens per sentence, including the end token."""
        return sum(len(tokens) - 1 for tokens in self._tokens.values()) / len(self._tokens)

    def text(self, key: str) -> str:
        """The original sentence of a group."""
        return self._texts[key]

    def tokens(self, key: str) -> np.ndarray:
        """Start token, tokens, end token; in mBART then the language."""
        return self._tokens[key]

    def is_evaluated(self, key: str) -> bool:
        """Whether the sentence belongs to val or test."""
        return key in self._table

    def number(self, key: str) -> int:
        """The index of the sentence within its split, below `num_evaluated`."""
        return self._numbers[key]

    def candidates(self, key: str) -> np.ndarray:
        """Tokens [candidate, text] of the sentence itself (first) and of others of its split."""
        return self._table[key]
