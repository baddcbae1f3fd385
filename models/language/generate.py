"""Text generation after prompts: one token at a time, with keys and values of earlier ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gearshift.models.base import DataError, Message, Prompt, Sampling
from gearshift.models.common.data_reports import BadRecords, OnBad
from gearshift.models.common.predictions import input_errors
from gearshift.models.common.table import Meanings
from gearshift.models.common.text_file import TextFile
from gearshift.models.language.preview import choose
from gearshift.models.language.readers.columns import contents
from gearshift.models.language.readers.forms import OPTIONAL
from gearshift.models.language.readers.rows import file_kind
from gearshift.models.language.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gearshift.models.language.model import Transformer
    from gearshift.models.language.pretrained import Pretrained

ALLOWED = "a text, which is one prompt, or a table or JSON with a prompt in each row"


def read_prompts(path: Path, declared: Meanings, on_bad: OnBad) -> list[Prompt]:
    """The prompts in a file: one for each row of JSONL, JSON and CSV, or one of a text.

    Answers of rows are left out. `declared`: see form_of. Reads the disk. Raises DataError.
    """
    stem = re.sub(r"[^\w.-]+", "-", path.stem)
    file = TextFile(path)
    prompts = []
    with input_errors():
        if file_kind(path) == "text":
            text = "\n".join(file.lines()).removesuffix("\n")
            if text:
                prompts.append(_prompt(stem, text))
        else:
            bad_records = BadRecords()
            rows = contents(file, declared, bad_records, {}, {*OPTIONAL, "answer"})
            prompts += [_prompt(f"{stem}-{line}", content) for line, content in rows]
            bad_records.finish(on_bad, len(prompts))
        if not prompts:
            raise DataError(f"--input '{path}' has no prompt", allowed=ALLOWED)
    return prompts


def _prompt(name: str, content: str | Sequence[Message]) -> Prompt:
    turns = [Message("user", content)] if isinstance(content, str) else list(content)
    while turns and turns[-1].role == "assistant":  # after the last request
        turns.pop()
    return Prompt(name, turns)


def tokens(prompt: Prompt, tokenizer: Tokenizer, *, is_request: bool) -> list[int]:
    """The tokens of a prompt as in training: of a request, up to the answer; or of a text."""
    if is_request:
        return tokenizer.prompt(prompt.messages).tolist()
    text = "\n".join(message.text for message in prompt.messages)
    return [tokenizer.first, *tokenizer.encode(text).tolist()]


def fitting(prompt: Sequence[int], window: int, count: int) -> list[int]:
    """The tokens of a prompt that fit into `window` tokens, with room for an answer of `count`.

    A longer prompt keeps its first token, which begins the text, and loses the oldest others.
    """
    if len(prompt) < window:
        return list(prompt)
    return _newest(prompt, window - min(count, window // 2))


def _newest(tokens: Sequence[int], count: int) -> list[int]:
    """The first of `tokens` and the last others, `count` in all."""
    return [tokens[0], *tokens[len(tokens) - count + 1 :]]


def generate(
    model: Transformer | Pretrained,
    prompt: Sequence[int],
    sampling: Sampling,
    tokenizer: Tokenizer,
    window: int,
) -> Iterator[str]:
    """The text after the tokens `prompt`, in parts, up to a token that ends it.

    When `window` tokens are in use, the older half is dropped. `sampling` has a temperature.
    """
    tokens = new = fitting(prompt, window, sampling.max_tokens)
    generator = torch.Generator().manual_seed(sampling.seed)
    logits_after = model.begin()
    # `context`: the first token before the next text; `shown`: the first without text so far.
    written: list[int] = []
    context = 0
    shown = 0

    def new_text() -> str:
        # Some tokenizers decode a word without the blank before it unless a token precedes it.
        before = tokenizer.decode(written[context:shown])
        return tokenizer.decode(written[context:])[len(before) :]

    for _ in range(sampling.max_tokens):
        if len(tokens) >= window:
            tokens = new = _newest(tokens, max(2, window // 2))
            logits_after = model.begin()
        with torch.no_grad():
            logits = logits_after(new).float().cpu()[: tokenizer.size]
        token = choose(logits, sampling, generator)
        if token in tokenizer.stops:
            break
        tokens = [*tokens, token]
        new = [token]
        written.append(token)
        text = new_text()
        if text and not text.endswith("\N{REPLACEMENT CHARACTER}"):  # the start of a character
            yield text
            context = shown
            shown = len(written)
    text = new_text()
    if text:
        yield text
