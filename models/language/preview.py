"""A sample of what the model writes, for a person to read."""

from __future__ import annotations

import torch
from torch.nn import Module

from models.language.dataset import Dataset
from models.language.generation import continue_tokens
from models.language.tokens.tokenizer import Tokenizer

PROMPT_TOKENS = 48
TOKENS = 96
SEED = 0


def show(model: Module, dataset: Dataset, device: torch.device) -> str:
    """A fixed prompt, a bar, and how the model goes on. Collective where it is sharded.

    The prompt is the start of the first validation document, continued by a seeded draw, or the
    first validation request, answered greedily. Half of a short row is prompt.
    """
    length, tokenizer = dataset.rules.length, dataset.tokenizer
    if dataset.text:
        row = dataset.text["val"].row(0)
        prompt, seed = row.inputs[: min(PROMPT_TOKENS, length // 2)], SEED
    else:
        prompt, seed = dataset.dialogues["val"].prompt(0)[-(length - length // 2) :], None
    count = min(TOKENS, length - len(prompt))
    (written,) = continue_tokens(
        model, [prompt.tolist()], count, pad=tokenizer.pad, device=device, seed=seed
    )
    return f"{readable(prompt.tolist(), tokenizer)}│{readable(written, tokenizer)}"


def readable(tokens: list[int], tokenizer: Tokenizer) -> str:
    """What `tokens` say up to their end token."""
    if tokenizer.end in tokens:
        tokens = tokens[: tokens.index(tokenizer.end)]
    return legible(tokenizer.decode(tokens))


def legible(text: str) -> str:
    """`text` without what could steer a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
