"""Text generation: one token at a time, with keys and values of earlier tokens kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Prompt, Sampling
from models.common.decoder_cache import cache_name
from models.language import prompts
from models.language.head import Head
from models.language.model import KeyValueCache, Transformer
from models.language.pretrained import Pretrained
from models.language.preview import TEMPERATURE
from models.language.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompting:
    """How a trained model generates text after a prompt."""

    tokenizer: Tokenizer
    window: int
    """Tokens that the model attends to at one time."""
    is_request: bool
    """Whether it was trained on conversations, so that a prompt is a request."""

    def dropped_tokens(self, prompt: Prompt, sampling: Sampling) -> int:
        """How many tokens of `prompt` `generate` leaves out."""
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
        return prompts.tokens(prompt, self.tokenizer, is_request=self.is_request)


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
    kept = ordered.cumsum(-1) - ordered < sampling.top_p
    if sampling.top_k is not None:
        kept[sampling.top_k :] = False
    picked = torch.multinomial(ordered * kept, 1, generator=generator)
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


class _LogitsAfter(Protocol):
    """Logits [vocabulary] after further tokens."""

    def __call__(self, tokens: Sequence[int]) -> Tensor: ...


def _logits_after(model: Module) -> _LogitsAfter:
    if isinstance(model, Pretrained):
        return _OfPretrained(model)
    assert isinstance(model, Transformer)
    return _OfTransformer(model)


class _OfTransformer:
    def __init__(self, model: Transformer) -> None:
        self._model, self._cache = model, KeyValueCache()

    def __call__(self, tokens: Sequence[int]) -> Tensor:
        ids = torch.tensor([tokens], device=self._model.lm_head.weight.device)
        hidden = self._model.model.extend(ids, self._cache)
        return self._model.lm_head(hidden[:, -1])[0]


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
        if is_plain:
            return head(output.last_hidden_state[:, -1])[0]
        logits: Tensor = output.logits
        return logits[0, -1]
