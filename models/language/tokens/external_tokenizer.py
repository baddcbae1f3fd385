"""The tokenizer of a local Hugging Face folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from models.base import DataError
from models.language.readers.records import Turn
from models.language.tokens import bpe
from models.language.tokens.tokenizer import Tokenizer

_LARGEST = 64 * 2**20
"""Bytes of a file that may be part of a tokenizer; what is larger holds weights."""


class ExternalTokenizer:
    """A tokenizer that transformers loads; nothing is downloaded and no code of the folder runs."""

    blank_leads = True

    def __init__(self, folder: Path) -> None:
        """Reads from disk; raises DataError if the folder holds no tokenizer."""
        from transformers import AutoTokenizer

        try:
            inner: Any = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # OSError, ValueError, KeyError, ImportError by kind of folder
            raise DataError(
                f"'{folder}' holds no tokenizer that transformers can load: "
                + str(error).strip().split("\n")[0],
                where="model.pretrained or model.tokenizer",
                allowed="a folder with tokenizer.json or tokenizer_config.json",
            ) from None
        if inner.eos_token_id is None:
            raise DataError(
                f"the tokenizer in '{folder}' names no token that ends a text",
                where=str(folder / "tokenizer_config.json"),
                allowed="an eos_token",
            )
        self.inner, self.name, self.folder = inner, folder.name, folder
        self.size = len(inner)
        self.start: int | None = inner.bos_token_id
        self.end: int = inner.eos_token_id
        self.pad: int = self.end if inner.pad_token_id is None else inner.pad_token_id

    @cached_property
    def digest(self) -> str:
        """See Tokenizer: of the folder's files but the weights. Reads from disk."""
        digest = hashlib.sha256(version("transformers").encode())
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and file.stat().st_size < _LARGEST:
                digest.update(f"{file.name}\0".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """The tokens of `text`; special tokens written out in it are recognised."""
        numbers = self.inner(text, add_special_tokens=False, verbose=False)["input_ids"]
        return np.array(numbers, dtype=np.uint16 if self.size <= 2**16 else np.uint32)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=True)

    def template(self, before: Sequence[Turn], answer: str) -> tuple[str, str] | None:
        """The folder's chat template, if it has one that ends in the answer."""
        if not self.inner.chat_template:
            return None
        turns = [{"role": t.role, "content": t.text} for t in before]
        prompt = self.inner.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = self.inner.apply_chat_template(
            [*turns, {"role": "assistant", "content": answer}], tokenize=False
        )
        if not whole.startswith(prompt):
            return prompt, answer
        return prompt, whole[len(prompt) :].rstrip()


def load(path: Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder or of a tokenizer.json. Raises DataError."""
    if not path.exists():
        raise DataError(
            f"model.tokenizer '{path}' does not exist",
            where=f"looked for {path.absolute()}",
            allowed="bytes, bpe, a folder that transformers can load, or a tokenizer.json",
        )
    return ExternalTokenizer(path) if path.is_dir() else bpe.load(path, path.stem)
