"""Export to Hugging Face: JSON and tokenizer files for transformers."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from models.common.hugging_face import TOKENIZER, TOKENIZER_CONFIG
from models.common.split import atomic_write
from models.language.readers.records import Turn
from models.language.subword_tokenizers import SPECIALS, BpeTokenizer, ExternalTokenizer
from models.language.tokenizer import ANSWER, FORMS, TAGS, ByteTokenizer, Tokenizer, prompt_and_answer

log = logging.getLogger(__name__)


def write_tokenizer(folder: Path, tokenizer: Tokenizer, length: int, *, is_chat: bool) -> None:
    """Write tokenizer files for transformers that give the same tokens. Disk access.

    `is_chat`: with a chat template that renders conversations as training saw them. A tokenizer
    that would make other tokens of it, such as one that adds spaces, gets none, and a note.
    """
    template = chat_template(tokenizer)
    if isinstance(tokenizer, ExternalTokenizer):
        own = tokenizer.inner.chat_template
        if is_chat and not own and _is_exact(template, tokenizer):
            tokenizer.inner.chat_template = template
        elif is_chat and not own:
            log.warning(
                "note: the export has no chat template: the tokenizer of %s makes other tokens of "
                "a whole conversation than of its turns, as in training; encode each turn alone",
                tokenizer.folder,
            )
        tokenizer.inner.save_pretrained(folder)
        tokenizer.inner.chat_template = own
        return
    inner = _as_library_tokenizer(tokenizer)
    numbers = {"bos_token": tokenizer.start, "eos_token": tokenizer.end, "pad_token": tokenizer.pad}
    atomic_write(folder / TOKENIZER, inner.to_str(pretty=True))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{name: inner.id_to_token(n) for name, n in numbers.items() if n is not None},
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
        # As in BpeTokenizer: "<|end|>" inside a text is plain text. A chat template renders the
        # special tokens of a conversation into its text.
        "split_special_tokens": not is_chat,
        **({"chat_template": template} if is_chat else {}),
    }
    write_json(folder / TOKENIZER_CONFIG, tokenizer_config)


_CHAT = Template(
    "$start{% set forms = $forms %}"
    "{% for message in messages %}{% set text = message['content'] | trim %}"
    "{% if loop.last and message['role'] == 'assistant' %}{{ $answer + ' ' + text + eos_token }}"
    "{% elif message['role'] in forms %}{{ forms[message['role']] | replace('{}', text) }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ $answer + '$space' }}{% endif %}"
)


def chat_template(tokenizer: Tokenizer) -> str:
    """The form of conversations in tokenizer.py, as a chat template of transformers."""
    start, space = "" if tokenizer.start is None else "{{ bos_token }}", " " * (not tokenizer.leading_space)
    return _CHAT.substitute(start=start, space=space, forms=json.dumps(FORMS), answer=json.dumps(ANSWER))


_PROBE = (
    *(Turn("system", "Be brief."), Turn("user", "One?\nTwo"), Turn("assistant", "3")),
    Turn("user", "five  six"),
)
"""A conversation of all roles."""


def _is_exact(template: str, tokenizer: ExternalTokenizer) -> bool:
    """Whether the tokens of a conversation in the template are those of training."""
    prompt, answer = prompt_and_answer(_PROBE, "It is so.", tokenizer)
    turns = [{"role": turn.role, "content": turn.text} for turn in _PROBE]
    last = {"role": "assistant", "content": "It is so."}
    render = partial(tokenizer.inner.apply_chat_template, chat_template=template, tokenize=False)
    texts = (render(turns, add_generation_prompt=True), render([*turns, last]))
    expected = (prompt, np.concatenate((prompt, answer)))
    return all(map(np.array_equal, map(tokenizer.encode, texts), expected))


def _as_library_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.inner
    assert isinstance(tokenizer, ByteTokenizer)
    # Byte-level BPE without merges, in which printable bytes stand for themselves.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    letters = [chr(byte if byte in printable else next(others)) for byte in range(256)]
    vocabulary = {letter: byte for byte, letter in enumerate(letters)}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_tokens([AddedToken(text, normalized=False, special=text not in TAGS) for text in SPECIALS])
    return inner


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file of a folder of transformers."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
