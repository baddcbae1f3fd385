"""A folder that transformers loads: configuration and tokenizer beside the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from models.base import DataError
from models.common.split import atomic_write
from models.language.config import Size
from models.language.model import NORM_EPSILON, ROTARY_BASE
from models.language.tokens import bpe
from models.language.tokens.bpe import BpeTokenizer
from models.language.tokens.external_tokenizer import ExternalTokenizer
from models.language.tokens.tokenizer import TAGS, ByteTokenizer, Tokenizer

CONFIG = "config.json"
_GENERATION = "generation_config.json"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_CARRIED = (
    _TOKENIZER,
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files that tokenizers of transformers consist of."""


@dataclass(frozen=True)
class Form:
    """The numbers of one of our own models, of which the weights alone do not tell all."""

    size: Size
    """With the vocabulary of the weights."""
    kv_heads: int
    length: int
    """Tokens of the longest sample that it was trained on."""


def write_ours(folder: Path, form: Form, tokenizer: Tokenizer) -> None:
    """Write the configuration of LlamaForCausalLM into `folder`. Touches disk."""
    size = form.size
    marks = {
        "bos_token_id": tokenizer.start,
        "eos_token_id": tokenizer.end,
        "pad_token_id": tokenizer.pad,
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size.vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": form.kv_heads,
        "head_dim": size.width // size.heads,
        "hidden_act": "silu",
        "max_position_embeddings": form.length,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROTARY_BASE,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        **marks,
    }
    _write(folder / CONFIG, config)
    _write(folder / _GENERATION, marks)


def carry_along(source: Path, folder: Path) -> None:
    """Copy what the model in `source` was, but for its weights, into `folder`. Touches disk.

    Ours are float32, whatever its own were. Raises DataError where it is gone.
    """
    try:
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise DataError(
            f"model.pretrained '{source}' has no configuration any more: {fault}",
            where=str(source / CONFIG),
            allowed="the folder that the run was trained from",
        ) from None
    config.pop("dtype", None)
    _write(folder / CONFIG, {**config, "torch_dtype": "float32"})
    if (source / _GENERATION).is_file():
        shutil.copyfile(source / _GENERATION, folder / _GENERATION)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, length: int) -> None:
    """Write files from which transformers loads a tokenizer with the same tokens. Touches disk."""
    if isinstance(tokenizer, ExternalTokenizer):
        for name in _CARRIED:
            if (tokenizer.folder / name).is_file():
                shutil.copyfile(tokenizer.folder / name, folder / name)
        return
    inner = _in_library(tokenizer)
    numbers = {
        "bos_token": tokenizer.start,
        "eos_token": tokenizer.end,
        "pad_token": tokenizer.pad,
    }
    atomic_write(folder / _TOKENIZER, inner.to_str(pretty=True))
    told = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: inner.id_to_token(n) for name, n in numbers.items() if n is not None},
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        # As ours: a text that speaks of <|end|> does not end there.
        "split_special_tokens": True,
    }
    _write(folder / _TOKENIZER_CONFIG, told)


def _in_library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.inner
    assert isinstance(tokenizer, ByteTokenizer)
    return tokenizers.Tokenizer.from_str(json.dumps(_bytes()))


def _bytes() -> dict[str, Any]:
    """ByteTokenizer as the tokenizers library has it: BPE on bytes, without any merge."""
    ours = ByteTokenizer()
    special = [bpe.PAD, bpe.START, bpe.END]
    reserved = [text for text in bpe.SPECIALS if text not in (*special, *TAGS)]
    added = [*special, *TAGS, *reserved]
    by_byte = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(ours.pad + i, text) for i, text in enumerate(added)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **by_byte},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", **by_byte},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {letter: byte for byte, letter in enumerate(_letters())},
            "merges": [],
        },
    }


def _added(number: int, text: str) -> dict[str, Any]:
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": text not in TAGS,
    }


def _letters() -> list[str]:
    """The letter that stands for each byte in the vocabulary of a byte-level tokenizer.

    Printable bytes of Latin-1 stand for themselves, the others follow from U+0100 on. Source:
    bytes_to_unicode of Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _write(path: Path, value: Mapping[str, Any]) -> None:
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
