"""Previews: generated text, predictions of a few samples, and a sample as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from gearshift.models.base import Predictions, SamplePart, Sampling
from gearshift.models.common.family import evaluating, padded, printable, spread_positions
from gearshift.models.language.model import IGNORE
from gearshift.models.language.rows import Row
from gearshift.models.language.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gearshift.models.language.dialogues import Samples

END = "[end]"
"""The end token in a sample as text."""
PROMPT_TOKENS = 96
WRITTEN_TOKENS = 64
Tokens = list[int]


def sample_text(row: Row, tokenizer: Tokenizer) -> list[SamplePart]:
    """A row as text; neighboring tokens that are all labels, or none of them, are one part."""
    # The first token is context: a label is the token after its input.
    in_loss = np.append(False, row.labels != IGNORE)
    labels = np.append(0, row.labels)
    inputs = np.append(row.inputs, row.labels[-1])
    # Where the next document begins, the label is the end of the one before it.
    tokens = np.where(in_loss, labels, inputs).tolist()
    parts = []
    before = ""
    text = ""
    for at, token in enumerate(tokens):
        is_end = token in tokenizer.stops
        is_last = at + 1 == len(tokens) or in_loss[at + 1] != in_loss[at]
        if is_end or is_last:
            # All tokens are decoded: a word alone can lack the blank before it.
            whole = tokenizer.decode(tokens[: at + 1])
            text += whole[len(before) :] + END * is_end
            before = whole
        if is_last and text:
            parts.append(SamplePart(text, bool(in_loss[at])))
            text = ""
    return parts


def choose(
    logits: Tensor,
    sampling: Sampling,
    generator: torch.Generator,
) -> int:
    """The next token by `logits` [vocabulary], float32; `sampling` has a temperature.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration, 2020 (top-p); Fan et al.,
    Hierarchical Neural Story Generation, 2018 (top-k).
    """
    if not sampling.temperature:
        return int(logits.argmax())
    shares = (logits / sampling.temperature).softmax(-1)
    shares, tokens = shares.sort(descending=True, stable=True)
    # A token counts if those before it do not add up to top_p yet: the likeliest always does.
    mask = shares.cumsum(-1) - shares < sampling.top_p
    if sampling.top_k is not None:
        mask[sampling.top_k :] = False
    place = torch.multinomial(shares * mask, 1, generator=generator)
    return int(tokens[place])


def continue_tokens(
    model: Module,
    prompts: Sequence[Tokens],
    sampling: Sampling,
    pad: int,
    device: torch.device,
) -> list[Tokens]:
    """`sampling.max_tokens` tokens after each of `prompts`.

    Always so many forward passes of one shape: ranks of a sharded model stay in step, and a
    compiled model compiles once. Collective if the model is sharded.
    """
    starts = list(map(len, prompts))
    count = sampling.max_tokens
    tokens = padded(list(map(np.array, prompts)), pad, max(starts) + count).to(device)
    generator = torch.Generator().manual_seed(sampling.seed)
    with evaluating(model):
        for at in range(count):
            # Causal attention ignores the padding at later positions.
            logits = model(tokens)
            for row, start in enumerate(starts):
                last = logits[row, start + at - 1].float().cpu()
                tokens[row, start + at] = choose(last, sampling, generator)
    rows = zip(tokens.tolist(), starts, strict=True)
    return [row[start : start + count] for row, start in rows]


def predict(
    model: Module,
    split: Samples,
    tokenizer: Tokenizer,
    device: torch.device,
    shown: int,
    temperature: float,
) -> Predictions:
    """Completions of rows spread over a split, beside the targets; each takes half a row at most.

    The prompt of a text is its beginning, that of a conversation what is before its first answer.
    Collective.
    """
    half = split.length // 2
    rows = [split.sample(index) for index in spread_positions(len(split), shown)]
    pairs = [_prompt_and_target(row, half) for row in rows]
    prompts = [prompt for prompt, _ in pairs]
    sampling = Sampling(min(WRITTEN_TOKENS, half), temperature)
    generated = continue_tokens(model, prompts, sampling, tokenizer.pad, device)

    table = []
    for row, pair, written in zip(rows, pairs, generated, strict=True):
        texts = [readable(tokens, tokenizer) for tokens in (*pair, written)]
        table.append([row.name, *texts])
    return Predictions(("source", "prompt", "target", "generated"), table)


def _prompt_and_target(row: Row, half: int) -> tuple[Tokens, Tokens]:
    """The tokens before the first answer of a row, and those after; or the halves of a text."""
    tokens = np.append(row.inputs, row.labels[-1]).tolist()
    longest = min(PROMPT_TOKENS, half)
    cut = int((row.labels != IGNORE).argmax()) + 1
    if cut == 1:
        cut = min(longest, len(tokens) - 1)
    begin = max(0, cut - longest)
    return tokens[begin:cut], tokens[cut : cut + min(WRITTEN_TOKENS, half)]


def readable(tokens: Tokens, tokenizer: Tokenizer) -> str:
    """Printable text of `tokens` up to the first that ends an answer."""
    visible = takewhile(lambda token: token not in tokenizer.stops, tokens)
    return printable(tokenizer.decode(list(visible)))
