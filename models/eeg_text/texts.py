"""Tokenizers, and the sentences of all splits as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from gearshift.models.base import Context, DataError, Groups
from gearshift.models.common import subwords
from gearshift.models.common.family import padded
from gearshift.models.common.subwords import SubwordTokenizer, truncate_at

PAD = "<pad>"
START = "<s>"
END = "</s>"
HIDDEN = "<mask>"
"""The special tokens of BART."""
CANDIDATES = 24
"""Candidates for retrieval, including the true sentence."""


class SentenceByteTokenizer:
    """Tokens 0-255 are bytes, then padding, start, end, hidden, and twelve reserved ones."""

    name = "bytes"
    pad = 256
    start = 257
    end = 258
    hidden = 259
    size = 272

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        text = bytes(token for token in truncate_at(tokens, self.end) if token < 256)
        return text.decode("utf-8", errors="replace")


class BartTokenizer(SubwordTokenizer):
    """A tokenizer of the tokenizers library with the special tokens of BART."""

    def __init__(
        self,
        inner: Any,
        limit: int,
        is_pretrained: bool = False,
    ) -> None:
        """Raises DataError if a special token is missing, or for more than `limit` entries.

        `is_pretrained`: sentences begin with </s> <s>, as BART was trained.
        """
        where = "model.pretrained" if is_pretrained else "model.tokenizer"
        super().__init__(inner, [[PAD], [START], [END], [HIDDEN]], where)
        self.name = "pretrained" if is_pretrained else "bpe"
        self.hidden = self.specials[3]
        # Between the start and the sentence.
        self._before = [self.start] if is_pretrained else []
        if is_pretrained:
            self.start = self.end
        if self.size > limit:
            raise DataError(
                f"the tokenizer has {self.size} entries, and the text decoder {limit}",
                where=where,
                allowed=f"a tokenizer of at most {limit} entries",
            )

    def encode(self, text: str) -> list[int]:
        return self._before + super().encode(text)


SentenceTokenizer = SentenceByteTokenizer | BartTokenizer
"""`hidden` replaces inputs that are hidden from the decoder; `decode` ends at the first `end`."""


def build_tokenizer(
    name: str,
    texts: Iterable[str],
    limit: int,
    context: Context,
) -> SentenceTokenizer:
    """The tokenizer that model.tokenizer names, with at most `limit` entries.

    A trained one is saved in the run folder, and loaded from there if it exists. Reads and writes
    the disk; raises DataError.
    """
    if name == "bytes":
        return SentenceByteTokenizer()
    specials = (START, PAD, END, HIDDEN)
    fit = partial(subwords.train_byte_bpe, texts, limit, specials)
    return BartTokenizer(subwords.load_or_fit(context, fit), limit)


class SentenceTexts:
    """Tokens and candidates of every sentence, by group."""

    def __init__(
        self,
        texts: Mapping[str, str],
        splits: Groups,
        tokenizer: SentenceTokenizer,
        longest: int,
        seed: int,
    ) -> None:
        """`texts`: a sentence per group. `longest`: the most tokens, including the end token."""
        self.tokenizer = tokenizer
        self.text = texts
        self.cut = 0
        """Number of truncated sentences."""
        self.tokens: dict[str, ndarray] = {}
        for key, text in texts.items():
            encoded = tokenizer.encode(text)
            self.cut += len(encoded) >= longest
            self.tokens[key] = np.array([tokenizer.start, *encoded[: longest - 1], tokenizer.end])
        self.steps = max(len(self.tokens[key]) for key in splits["train"]) - 1
        """Tokens to generate: those of the longest training sentence, including the end token."""
        evaluated = (splits["val"], splits["test"])
        self.candidate_count = min(CANDIDATES, *map(len, evaluated))
        self.num_evaluated = max(map(len, evaluated))
        """Sentences of the larger of the evaluated splits."""
        self.candidates: dict[str, ndarray] = {}
        """Of each sentence of val and test the tokens [candidate, text]: first its own, then those
        of others of its split."""
        self.number: dict[str, int] = {}
        """The index of such a sentence within its split."""
        # One width for all, so that batches of candidates can be stacked.
        width = max(len(self.tokens[key]) for keys in evaluated for key in keys)
        for keys in evaluated:
            rows = padded([self.tokens[key] for key in keys], tokenizer.pad, width).numpy()
            rng = np.random.default_rng([seed, len(keys)])
            for number, key in enumerate(keys):
                order = rng.permutation(len(keys))
                others = order[order != number][: self.candidate_count - 1]
                self.number[key] = number
                self.candidates[key] = rows[[number, *others]]
