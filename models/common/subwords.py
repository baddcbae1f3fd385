"""Subword tokenizers of the tokenizers library: trained on texts, or loaded from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from gearshift.models.base import Context, DataError
from gearshift.models.common.data_reports import library_errors

TOKENIZER_FILE = "tokenizer.json"
"""Its name in the run folder, and in a folder of transformers."""


def train_byte_bpe(
    texts: Iterable[str],
    size: int,
    specials: Sequence[str],
) -> tokenizers.Tokenizer:
    """Byte-level BPE of at most `size` entries; equal texts give an equal tokenizer.

    Source: Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword
    Units, 2016; on bytes as in Radford et al., 2019.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def load_tokenizer(path: Path, where: str = "model.tokenizer") -> tokenizers.Tokenizer:
    """The tokenizer of a tokenizer.json. Reads the disk; raises DataError if it is not one."""
    allowed = "the tokenizer.json of the tokenizers library"
    with library_errors(f"'{path}' is not a tokenizer", where, allowed=allowed):
        return tokenizers.Tokenizer.from_buffer(path.read_bytes())


@contextmanager
def encode_errors(where: str) -> Iterator[None]:
    """Raises a panic of the tokenizers library, which is no Exception, as DataError.

    Its patterns are those of a file; one such as `(a+)+$` does not end, and the library gives up.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # no module has this class
            raise
        raise DataError(
            f"the tokenizer cannot encode a text: {error}",
            where=where,
            allowed="a tokenizer whose patterns end on each text",
        ) from None


class SubwordTokenizer:
    """Converts text to token ids and back; special tokens written in a text are plain text."""

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        specials: Sequence[Sequence[str]],
        where: str,
    ) -> None:
        """`specials`: the names that padding, start, end and others may have.

        Raises DataError if `inner` has none of the names of one of them.
        """
        inner.encode_special_tokens = True  # otherwise "</s>" inside a text would end it
        self.inner = inner
        self.where = where
        known = inner.get_vocab()
        self.size = max(known.values()) + 1
        """Number of token ids; every id is below it."""
        self.specials: list[int] = []
        for names in specials:
            tokens = [known[name] for name in names if name in known]
            if not tokens:
                needed = ", ".join(map(" or ".join, specials))
                raise DataError(
                    f"the tokenizer has none of the tokens {', '.join(names)}",
                    where=where,
                    allowed=f"a tokenizer with {needed}",
                )
            self.specials.append(tokens[0])
        self.pad, self.start, self.end, *_ = self.specials

    def encode(self, text: str) -> list[int]:
        """Tokens of `text`, without special tokens."""
        with encode_errors(self.where):
            return list(self.inner.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens` before the first end token."""
        visible = [token for token in truncate_at(tokens, self.end) if token not in self.specials]
        return str(self.inner.decode(visible, skip_special_tokens=False))


def truncate_at(tokens: Sequence[int], end: int) -> list[int]:
    """The `tokens` before the first `end`."""
    return list(takewhile(end.__ne__, map(int, tokens)))


def load_or_fit(
    context: Context,
    fit: Callable[[], tokenizers.Tokenizer],
) -> tokenizers.Tokenizer:
    """The tokenizer saved in the run folder; if there is none, it is fitted and saved there."""
    path = context.folder / TOKENIZER_FILE if context.folder else None
    if path is not None and path.exists():
        return load_tokenizer(path)
    tokenizer = fit()
    save_tokenizer(tokenizer, context)
    return tokenizer


def save_tokenizer(tokenizer: tokenizers.Tokenizer, context: Context) -> None:
    """Write a tokenizer into the run folder, unless it holds the same."""
    context.save(TOKENIZER_FILE, tokenizer.to_str(pretty=True))
