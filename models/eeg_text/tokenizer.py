"""Sentences as numbers: bytes, or byte-level BPE trained on the sentences or read from a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from models.base import DataError
from models.common.split import write_whole

KEPT = "tokenizer.json"
"""Its name in the run folder."""
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
                legal=f"bytes, bpe, or one with {PAD} {START} {END} {HIDDEN}, as BART's has",
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
    kept = folder / KEPT if folder else None
    if word != "bpe":
        path = Path(word).expanduser()
        found = _load(path / KEPT if path.is_dir() else path, word)
    elif kept is not None and kept.exists():
        found = _load(kept, "bpe")
    else:
        found = _train(texts, most)
        if kept is not None:
            write_whole(kept, found.inner.to_str(pretty=True))
    if found.size > most:
        raise DataError(
            f"the tokenizer has {found.size} entries, a decoder of this size {most}",
            where="model.tokenizer, model.size",
            legal=f"a tokenizer of at most {most} entries",
            mend="--set model.tokenizer=bytes",
        )
    return found


def _train(texts: Iterable[str], size: int) -> BpeTokenizer:
    """Fitted on `texts`; equal texts give an equal one.

    Source: Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword
    Units, 2016; on bytes as in Radford et al., 2019.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[START, PAD, END, HIDDEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    inner.train_from_iterator(texts, trainer)
    return BpeTokenizer(inner, "bpe")


def _load(path: Path, name: str) -> BpeTokenizer:
    import tokenizers

    try:
        return BpeTokenizer(tokenizers.Tokenizer.from_str(path.read_text("utf-8")), name)
    except DataError:
        raise
    except Exception as error:  # the library raises plain Exception for every fault of a file
        raise DataError(
            f"model.tokenizer '{name}' is no tokenizer: {error}",
            where=str(path),
            legal="bytes, bpe, or the tokenizer.json of the tokenizers library",
        ) from None
