"""Text generation after prompts: one token at a time, with keys and values of earlier ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from models.base import DataError, Message, Prompt, Sampling
from models.common.data_files import BadRecords, OnBad
from models.common.hugging_face import cache_name
from models.common.predictions import input_errors
from models.common.text_file import TextFile
from models.language.head import Head
from models.language.model import KeyValueCache, Transformer
from models.language.pretrained import Pretrained
from models.language.preview import TEMPERATURE
from models.language.readers.columns import RawRow, RowReader, columns_in
from models.language.readers.files import rows_of
from models.language.readers.records import Conversation, Turn
from models.language.tokenizer import Tokenizer, prompt_and_answer

ALLOWED = "a text, which is one prompt, or a table or JSON with a prompt in each row"
_ANSWER = "(answer)"
"""A column that completes a row without an answer."""


def read_prompts(path: Path, declared: Mapping[str, str], on_bad: OnBad) -> list[Prompt]:
    """The prompts in a file: one for each row of JSONL, JSON and CSV, or one of a text.

    Answers of rows are left out. `declared`: see columns_in. Reads the disk. Raises DataError.
    """
    if not path.is_file():
        raise DataError(f"--input '{path}' is not a file", where=str(path.absolute()), allowed=ALLOWED)
    stem, bad_records = re.sub(r"[^\w.-]+", "-", path.stem), BadRecords()
    with input_errors():
        file = TextFile(path)
        rows = rows_of(file, path.name, bad_records)
        if rows is None:
            text = "\n".join(file.lines()).removesuffix("\n")
            prompts = [text_prompt(text, stem)] if text else []
        else:
            reader = RowReader(path.name, {**declared, _ANSWER: "answer"}, bad_records)
            prompts = [p for row in rows for p in _prompts_of(row, stem, reader, declared)]
            bad_records.finish(on_bad, len(prompts))
        if not prompts:
            raise DataError(f"--input '{path}' has no prompt", allowed=ALLOWED)
    return prompts


def text_prompt(text: str, name: str = "prompt") -> Prompt:
    """The prompt of one text: the start of a text, or a request."""
    return Prompt(name, (Message("user", text),))


def _prompts_of(raw: RawRow, stem: str, reader: RowReader, declared: Mapping[str, str]) -> Iterator[Prompt]:
    """The prompt of a row; none, and a bad record, if it is invalid. Raises DataError."""
    row, name = raw.fields, f"{stem}-{raw.number}"
    columns, _ = columns_in(tuple(row), declared)
    if "text" in columns and isinstance(row[columns["text"]], str):
        yield text_prompt(row[columns["text"]], name)
        return
    if "messages" not in columns:
        row = {key: value for key, value in row.items() if key != columns.get("answer")}
        row[_ANSWER] = "-"
    for record in reader.records(replace(raw, fields=row)):
        assert isinstance(record, Conversation)
        requests = [n for n, turn in enumerate(record.turns) if turn.role != "assistant"]
        turns = record.turns[: max(requests, default=-1) + 1]
        messages = tuple(Message(turn.role, turn.text) for turn in turns)
        yield Prompt(name, messages)


def tokens(prompt: Prompt, tokenizer: Tokenizer, *, is_request: bool) -> list[int]:
    """The tokens of a prompt as in training: of a request, up to the answer; or of a text."""
    if is_request:
        turns = [Turn(m.role, m.text) for m in prompt.messages]
        answer = Turn("assistant", "-")
        return prompt_and_answer(turns, answer, tokenizer)[0].tolist()
    text = "\n".join(message.text for message in prompt.messages)
    start = tokenizer.end if tokenizer.start is None else tokenizer.start
    return [start, *tokenizer.encode(text).tolist()]


@dataclass(frozen=True)
class Prompting:
    """How a trained model generates text after a prompt."""

    tokenizer: Tokenizer
    window: int
    """Tokens that the model attends to at one time."""
    is_request: bool
    """Whether it was trained on conversations, so that a prompt is a request."""

    def dropped_tokens(self, prompt: Prompt, sampling: Sampling) -> int:
        tokens = self._tokens(prompt)
        return len(tokens) - len(fitting(tokens, self.window, sampling.max_tokens))

    def generate(self, model: Module, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """The parts of the text after `prompt`.

        As in previews, the default is to answer greedily and to continue a text by sampling.
        """
        if sampling.temperature is None:
            sampling = replace(sampling, temperature=0.0 if self.is_request else TEMPERATURE)
        return generate(model, self._tokens(prompt), sampling, self.tokenizer, self.window)

    def _tokens(self, prompt: Prompt) -> list[int]:
        return tokens(prompt, self.tokenizer, is_request=self.is_request)


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


@torch.no_grad()
def generate(
    model: Module, prompt: Sequence[int], sampling: Sampling, tokenizer: Tokenizer, window: int
) -> Iterator[str]:
    """The text after the tokens `prompt`, in parts, up to the end token.

    When `window` tokens are in use, the older half is dropped. `sampling` has a temperature.
    """
    tokens = fitting(prompt, window, sampling.max_tokens)
    generator = torch.Generator().manual_seed(sampling.seed)
    text = _TextStream(tokenizer)
    logits_after = _logits_after(model)
    new = tokens
    for _ in range(sampling.max_tokens):
        if len(tokens) >= window:
            tokens = new = _newest(tokens, max(2, window // 2))
            logits_after = _logits_after(model)
        logits = logits_after(new).float().cpu()[: tokenizer.size]
        token = choose(logits, sampling, generator)
        if token == tokenizer.end:
            break
        tokens, new = [*tokens, token], [token]
        yield from text.add(token)
    yield from text.rest()


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token by `logits` [vocabulary], float32.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020 (top-p); Fan et al.,
    Hierarchical Neural Story Generation, 2018 (top-k).
    """
    if not sampling.temperature:
        return int(logits.argmax())
    ordered, tokens = (logits / sampling.temperature).softmax(-1).sort(descending=True, stable=True)
    # A token counts if those before it do not add up to top_p yet: the likeliest always does.
    mask = ordered.cumsum(-1) - ordered < sampling.top_p
    if sampling.top_k is not None:
        mask[sampling.top_k :] = False
    picked = torch.multinomial(ordered * mask, 1, generator=generator)
    return int(tokens[picked])


class _TextStream:
    """Text of tokens as they come; waits for the other bytes of a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._context = self._shown = 0
        """The first token of the context of the next text, and the first without text so far."""

    def add(self, token: int) -> Iterator[str]:
        """The text that `token` completes, if any."""
        self._tokens.append(token)
        text = self._new()
        if text and not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield from self.rest()

    def rest(self) -> Iterator[str]:
        """The text that was not given yet, if any."""
        if text := self._new():
            yield text
        self._context, self._shown = self._shown, len(self._tokens)

    def _new(self) -> str:
        # Some tokenizers decode a word without the blank before it unless a token precedes it.
        before = self._tokenizer.decode(self._tokens[self._context : self._shown])
        return self._tokenizer.decode(self._tokens[self._context :])[len(before) :]


def _logits_after(model: Module) -> Callable[[Sequence[int]], Tensor]:
    """A function that gives the logits [vocabulary] after further tokens."""
    return _OfPretrained(model) if isinstance(model, Pretrained) else _of_transformer(model)


def _of_transformer(model: Module) -> Callable[[Sequence[int]], Tensor]:
    assert isinstance(model, Transformer)
    cache = KeyValueCache()

    def logits_after(tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor([tokens], device=model.lm_head.weight.device)
        logits: Tensor = model.lm_head(model.model(ids, cache=cache)[:, -1])
        return logits[0]

    return logits_after


class _OfPretrained:
    """Architectures of transformers differ in their caches; without one, all is computed again."""

    def __init__(self, model: Pretrained) -> None:
        self._inner, self._cache = model.inner, None
        self._device = next(model.parameters()).device
        self._tokens: list[int] = []

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        self._tokens += tokens
        head = self._inner.get_output_embeddings()
        is_plain = isinstance(head, Head)
        inner: Any = self._inner.base_model if is_plain else self._inner
        name = cache_name(inner)
        cached: dict[str, Any] = {} if self._cache is None else {name: self._cache}
        ids = torch.tensor([tokens if cached else self._tokens], device=self._device)
        output = inner(input_ids=ids, use_cache=True, **cached)
        self._cache = getattr(output, name, None)
        logits: Tensor = head(output.last_hidden_state[:, -1:]) if is_plain else output.logits
        return logits[0, -1]
