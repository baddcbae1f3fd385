"""Export to Hugging Face: JSON and tokenizer files for transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from gearshift.models.common.hugging_face import TOKENIZER, TOKENIZER_CONFIG
from gearshift.models.language.subword_tokenizers import (
    SPECIALS,
    BpeTokenizer,
    ExternalTokenizer,
    chat_template,
)
from gearshift.models.language.tokenizer import TAGS, ByteTokenizer, Tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, length: int, *, is_chat: bool) -> None:
    """Write tokenizer files for transformers that give the same tokens. Disk access.

    `is_chat`: with a chat template that renders conversations as training saw them.
    """
    if isinstance(tokenizer, ExternalTokenizer):
        if is_chat and tokenizer.form is not None:
            tokenizer.inner.chat_template = tokenizer.form
        tokenizer.inner.save_pretrained(folder)
        return
    inner = _as_library_tokenizer(tokenizer)
    (folder / TOKENIZER).write_text(inner.to_str(pretty=True), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": inner.id_to_token(tokenizer.end),
        "pad_token": inner.id_to_token(tokenizer.pad),
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        # As in BpeTokenizer: "<|end|>" inside a text is plain text. A chat template renders the
        # special tokens of a conversation into its text.
        "split_special_tokens": not is_chat,
    }
    if tokenizer.start is not None:
        config["bos_token"] = inner.id_to_token(tokenizer.start)
    if is_chat:
        config["chat_template"] = chat_template(tokenizer)
    write_json(folder / TOKENIZER_CONFIG, config)


def _as_library_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.inner
    assert isinstance(tokenizer, ByteTokenizer)
    # Byte-level BPE without merges, in which visible bytes stand for themselves.
    visible = ByteLevel.alphabet()
    others = map(chr, range(0x100, 0x200))
    vocabulary = {}
    for byte, letter in enumerate(map(chr, range(0x100))):
        vocabulary[letter if letter in visible else next(others)] = byte
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    for text in SPECIALS:
        inner.add_tokens([AddedToken(text, normalized=False, special=text not in TAGS)])
    return inner


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file of a folder of transformers."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
