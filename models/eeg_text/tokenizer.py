"""Sentences as numbers: bytes, or byte-level BPE trained on the sentences or read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from models.base import DataError
from models.common import subwords

PAD, START, END, HIDDEN = "<pad>", "<s>", "</s>", "<mask>"
"""As BART has them."""


class Tokenizer(Protocol):
    """Text to numbers and back."""

    name: str
    size: int
    pad: int
    start: int
    end: int
    hidden: int
    """Stands where an input is hidden from the decoder."""

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`, without start and end."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens` up to the first end."""


class ByteTokenizer:
    """Numbers 0-255 are bytes, then padding, start, end, what is hidden, and twelve in reserve."""

    name = "bytes"
    pad, start, end, hidden = 256, 257, 258, 259
    size = 272

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        """See Tokenizer; what is no UTF-8 becomes U+FFFD."""
        kept = until(tokens, self.end)
        return bytes(t for t in kept if t < 256).decode("utf-8", errors="replace")


class BpeTokenizer:
    """A tokenizer of the tokenizers library that has BART's special tokens."""

    def __init__(self, inner: Any, name: str) -> None:
        """Raises DataError if a special token is missing."""
        inner.encode_special_tokens = True  # else a text that speaks of </s> would end there
        self.inner, self.name = inner, name
        self.size = max(inner.get_vocab().values()) + 1
        self.pad, self.start, self.end, self.hidden = map(self._special, (PAD, START, END, HIDDEN))

    def _special(self, token: str) -> int:
        number = self.inner.token_to_id(token)
        if number is None:
            raise DataError(
                f"tokenizer '{self.name}' has no token {token}",
                where="model.tokenizer",
                allowed=f"bytes, bpe, or one with {PAD} {START} {END} {HIDDEN}, as BART's has",
            )
        return int(number)

    def encode(self, text: str) -> list[int]:
        """See Tokenizer."""
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """See Tokenizer."""
        special = {self.pad, self.start, self.end, self.hidden}
        kept = [t for t in until(tokens, self.end) if t not in special]
        return str(self.inner.decode(kept, skip_special_tokens=False))


def until(tokens: Sequence[int], end: int) -> list[int]:
    """`tokens` before the first `end`."""
    found = list(map(int, tokens))
    return found[: found.index(end)] if end in found else found


def fit(word: str, texts: Iterable[str], most: int, folder: Path | None) -> Tokenizer:
    """The tokenizer that model.tokenizer names, of `most` entries at most.

    A trained one is kept in the run folder, and read from there if it is there. Touches disk;
    raises DataError.
    """
    if word == "bytes":
        return ByteTokenizer()
    if word == "bpe":
        specials = (START, PAD, END, HIDDEN)
        inner = subwords.load_or_fit(folder, lambda: subwords.train_byte_bpe(texts, most, specials))
    else:
        path = Path(word).expanduser()
        inner = subwords.load_tokenizer(path / subwords.TOKENIZER_FILE if path.is_dir() else path)
    found = BpeTokenizer(inner, word)
    if found.size > most:
        raise DataError(
            f"the tokenizer has {found.size} entries, a decoder of this size {most}",
            where="model.tokenizer, model.size",
            allowed=f"a tokenizer of at most {most} entries",
            fix="--set model.tokenizer=bytes",
        )
    return found
