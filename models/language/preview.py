"""Previews: generated text, predictions of a few samples, and a sample as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.base import Predictions, SamplePart, Sampling
from gearshift.models.common.family import evaluating, printable, spread_positions
from gearshift.models.language.head import IGNORE
from gearshift.models.language.rows import Row, Samples
from gearshift.models.language.tokenizer import Tokenizer

END = "[end]"
"""The end token in a sample as text."""
PROMPT_TOKENS = 96
WRITTEN_TOKENS = 64
COLUMNS = ("source", "prompt", "target", "generated", "token accuracy")


def sample_text(row: Row, tokenizer: Tokenizer) -> list[SamplePart]:
    """A row as text; neighboring tokens that are all labels, or none of them, are one part."""
    # The first token is context: a label is the token after its input.
    in_loss = np.append(False, row.labels != IGNORE)
    following = np.where(in_loss[1:], row.labels, np.append(row.inputs[1:], row.labels[-1]))
    tokens = np.append(row.inputs[0], following)
    parts = []
    begin = 0
    for end in [*(np.flatnonzero(np.diff(in_loss)) + 1).tolist(), len(tokens)]:
        text = _with_ends(tokens[:end].tolist(), begin, tokenizer)
        parts.append(SamplePart(text, bool(in_loss[begin])))
        begin = end
    return [part for part in parts if part.text]


def _with_ends(tokens: list[int], begin: int, tokenizer: Tokenizer) -> str:
    """The text of the tokens from `begin`, with END for each token that ends an answer."""
    pieces: list[str] = []
    shown = tokenizer.decode(tokens[:begin])
    ends = [at for at, token in enumerate(tokens) if token in tokenizer.stops and at >= begin]
    for at in [*ends, len(tokens)]:
        text = tokenizer.decode(tokens[:at])
        pieces.append(text[len(shown) :])  # a word alone can lack the blank before it
        shown = text
    return END.join(pieces)


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token by `logits` [vocabulary], float32; `sampling` has a temperature.

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


def continue_tokens(
    model: Module,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    pad: int,
    device: torch.device,
) -> list[list[int]]:
    """`sampling.max_tokens` tokens after each of `prompts`.

    Always so many forward passes of one shape: ranks of a sharded model stay in step, and a
    compiled model compiles once. Collective if the model is sharded.
    """
    starts = [len(prompt) for prompt in prompts]
    count = sampling.max_tokens
    rows = [[*prompt, *[pad] * (max(starts) + count - len(prompt))] for prompt in prompts]
    tokens = torch.tensor(rows, device=device)
    generator = torch.Generator().manual_seed(sampling.seed)
    with evaluating(model):
        for at in range(count):
            # Causal attention ignores the padding at later positions.
            logits = model(tokens)
            for row, start in enumerate(starts):
                last = logits[row, start + at - 1].float().cpu()
                tokens[row, start + at] = choose(last, sampling, generator)
    return [row[start : start + count] for row, start in zip(tokens.tolist(), starts, strict=True)]


def predict(
    model: Module,
    split: Samples,
    tokenizer: Tokenizer,
    device: torch.device,
    shown: int,
    temperature: float,
) -> Predictions:
    """Completions of rows spread over a split, beside the targets; prompts and they take half a row each.

    The prompt of a text is its beginning, that of a conversation what is before its first answer.
    Collective.
    """
    half = split.length // 2
    found = []
    for row in (split.sample(index) for index in spread_positions(len(split), shown)):
        tokens = [*row.inputs.tolist(), int(row.labels[-1])]
        first = int((row.labels != IGNORE).argmax()) + 1
        most = min(PROMPT_TOKENS, half)
        cut = first if first > 1 else min(most, len(tokens) - 1)
        is_over = row.labels[cut:] == IGNORE  # another turn follows the answer
        length = int(is_over.argmax()) + 1 if is_over.any() else len(tokens) - cut
        target = tokens[cut : cut + min(WRITTEN_TOKENS, half, length)]
        found.append((row.name, tokens[max(0, cut - most) : cut], target))
    sampling = Sampling(min(WRITTEN_TOKENS, half), temperature)
    generated = continue_tokens(
        model, [prompt for _, prompt, _ in found], sampling, tokenizer.pad, device
    )
    table: list[tuple[str | float, ...]] = []
    for (name, prompt, target), written in zip(found, generated, strict=True):
        texts = [readable(part, tokenizer) for part in (prompt, target, written)]
        accuracy = float(np.mean(np.array(target) == np.array(written[: len(target)])))
        table.append((name, *texts, accuracy))
    return Predictions(COLUMNS, table)


def readable(tokens: list[int], tokenizer: Tokenizer) -> str:
    """Printable text of `tokens` up to the first that ends an answer."""
    visible = takewhile(lambda token: token not in tokenizer.stops, tokens)
    return printable(tokenizer.decode(list(visible)))
