"""Subwords of the tokenizers library: fitted on texts, or read from a tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from models.base import DataError
from models.common.split import atomic_write

TOKENIZER_FILE = "tokenizer.json"
"""Its name in the run folder, and in a folder of transformers."""


def train_byte_bpe(
    texts: Iterable[str], size: int, specials: Sequence[str]
) -> tokenizers.Tokenizer:
    """Byte-level BPE of at most `size` entries; equal texts give an equal one.

    Source: Sennrich, Haddow and Birch, Neural Machine Translation of Rare Words with Subword
    Units, 2016; on bytes as in Radford et al., 2019.
    """
    found = tokenizers.Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        show_progress=False,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    found.train_from_iterator(texts, trainer)
    return found


def load_tokenizer(path: Path, where: str = "model.tokenizer") -> tokenizers.Tokenizer:
    """That of a tokenizer.json. Reads from disk; raises DataError if it is none."""
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain Exception for every fault of a file
        raise DataError(
            f"'{path}' is no tokenizer: {error}",
            where=where,
            allowed="the tokenizer.json of the tokenizers library",
        ) from None


def load_or_fit(
    folder: Path | None, fit: Callable[[], tokenizers.Tokenizer]
) -> tokenizers.Tokenizer:
    """That of the run folder; fitted and kept there if it holds none yet. Touches disk."""
    path = folder / TOKENIZER_FILE if folder else None
    if path is not None and path.exists():
        return load_tokenizer(path)
    found = fit()
    if path is not None:
        atomic_write(path, found.to_str(pretty=True))
    return found
