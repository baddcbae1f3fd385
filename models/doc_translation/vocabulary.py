"""Subword vocabulary of the translations: BPE on characters with byte fallback."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from gearshift.models.base import Context
from gearshift.models.common import subwords
from gearshift.models.common.subwords import SubwordTokenizer

PAD = "<|pad|>"
START = "<|start|>"
END = "<|end|>"
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
MIN_SIZE = 3 + len(BYTES)
"""Entries required to encode every text."""
TRAINED_ON = 30_000
"""Maximum number of training texts; more hardly change the subwords."""

_PIECES = Regex(r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+")
_SPECIALS = (
    (PAD, "[PAD]", "<pad>"),
    (START, "<s>", "[CLS]", "<bos>"),
    (END, "</s>", "[SEP]", "<eos>"),
)
"""Names of the tokens for padding, start and end in the vocabularies of others."""


class Vocabulary(SubwordTokenizer):
    """Converts text to token ids and back without loss."""

    def __init__(self, inner: tokenizers.Tokenizer, where: str = "model.vocabulary") -> None:
        """Raises DataError if `inner` has no tokens for padding, start and end."""
        super().__init__(inner, _SPECIALS, where)


def train(texts: Iterable[str], size: int) -> Vocabulary:
    """Train at most `size` (above MIN_SIZE) subwords; equal texts give equal vocabularies.

    Sources: Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword
    Units, 2016; byte fallback as in Kudo and Richardson, SentencePiece, 2018.
    """
    assert size > MIN_SIZE
    inner = tokenizers.Tokenizer(models.BPE(byte_fallback=True))
    inner.pre_tokenizer = pre_tokenizers.Split(_PIECES, "isolated")
    inner.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[PAD, START, END, *BYTES],
        limit_alphabet=(size - MIN_SIZE) // 2,
    )
    inner.train_from_iterator(islice(texts, TRAINED_ON), trainer)
    return Vocabulary(inner)


def load(path: Path) -> Vocabulary:
    """Load a tokenizer.json. Disk access; raises DataError if it is invalid."""
    return Vocabulary(subwords.load_tokenizer(path, str(path)), str(path))


def load_or_train(texts: Iterable[str], size: int, context: Context) -> Vocabulary:
    """Load the vocabulary of the run folder; if there is none, train and store it there."""
    return Vocabulary(subwords.load_or_fit(context, lambda: train(texts, size).inner))
