"""Tokenizer of a local Hugging Face folder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from models.base import DataError
from models.common.hub import name_of
from models.common.hugging_face import TOKENIZER_CONFIG, read_tokenizer
from models.common.subwords import encode_errors
from models.language import bpe
from models.language.readers.records import Turn
from models.language.tokenizer import Tokenizer

_TEMPLATES = ("chat_template.jinja", "chat_template.json")
"""Files of a chat template; without them it is in the configuration."""
_LARGEST = 64 * 2**20
"""Maximum bytes of a tokenizer file; larger files hold weights."""


class ExternalTokenizer:
    """Tokenizer loaded by transformers; no download, no code of the folder is run."""

    leading_space = True

    def __init__(self, folder: Path) -> None:
        """Disk access; raises DataError if the folder has no usable tokenizer."""
        inner = read_tokenizer(folder)
        if inner.eos_token_id is None:
            raise DataError(
                f"the tokenizer in '{folder}' has no end-of-text token",
                where=str(folder / TOKENIZER_CONFIG),
                allowed="an eos_token",
            )
        self.inner, self.name, self.folder = inner, name_of(folder), folder
        self.size = len(inner)
        self.start: int | None = inner.bos_token_id
        self.end: int = inner.eos_token_id
        self.pad: int = self.end if inner.pad_token_id is None else inner.pad_token_id

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(version("transformers").encode())
        for file in sorted(self.folder.iterdir()):
            if file.is_file() and file.stat().st_size < _LARGEST:
                digest.update(f"{file.name}\0".encode())
                digest.update(file.read_bytes())
        return digest.hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """Tokens of `text`; special tokens written in it count as such."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        with encode_errors(str(self.folder)):
            numbers = self.inner(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.array(n, dtype=np.uint16 if self.size <= 2**16 else np.uint32) for n in numbers]

    def decode(self, tokens: Sequence[int]) -> str:
        return self.inner.decode([int(t) for t in tokens], skip_special_tokens=True)

    def template(self, before: Sequence[Turn], answer: Turn) -> tuple[str, str] | None:
        """The conversation in the folder's chat template; None if it has no template.

        Raises DataError if the template fails.
        """
        if not self.inner.chat_template:
            return None
        turns = [{"role": turn.role, "content": turn.text} for turn in before]
        render = partial(self.inner.apply_chat_template, tokenize=False)
        try:
            prompt = render(turns, add_generation_prompt=True)
            whole = render([*turns, {"role": answer.role, "content": answer.text.strip()}])
        except Exception as error:  # TemplateError, TypeError and others: a template is a program
            raise self._template_error(error, before) from None
        is_cut = whole.startswith(prompt)
        return prompt, whole[len(prompt) :].rstrip() if is_cut else answer.text.strip()

    def _template_error(self, error: Exception, before: Sequence[Turn]) -> DataError:
        files = (name for name in _TEMPLATES if (self.folder / name).is_file())
        file = self.folder / next(files, TOKENIZER_CONFIG)
        line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
        problem = str(error).strip().splitlines() or [type(error).__name__]
        roles = ", ".join(turn.role for turn in before)
        return DataError(
            f"the chat template fails: {line}{problem[0]}",
            where=f"{file}, for a conversation of {roles}",
            allowed="a template that renders the conversations of data.path",
        )


def load(path: Path) -> Tokenizer:
    """Load the tokenizer of a Hugging Face folder or tokenizer.json. Raises DataError."""
    if not path.exists():
        raise DataError(
            f"model.tokenizer '{path}' does not exist",
            where=str(path.absolute()),
            allowed="bytes, bpe, a Hugging Face folder or a tokenizer.json",
        )
    return ExternalTokenizer(path) if path.is_dir() else bpe.load(path, path.stem)
