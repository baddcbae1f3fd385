"""Previews: generated text, predictions of a few samples, and a sample as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch.nn import Module

from models.base import Predictions, SamplePart
from models.common.predictions import evaluating, printable, spread_positions
from models.language.dataset import Dataset
from models.language.head import IGNORE
from models.language.rows import Row
from models.language.tokenizer import Tokenizer

TEMPERATURE = 0.8


END = "[end]"
"""The end token in a sample as text."""


def sample_text(row: Row, tokenizer: Tokenizer) -> list[SamplePart]:
    """A row as text; neighboring tokens that are all labels, or none of them, are one part."""
    # The first token is context: a label is the token after its input.
    in_loss = np.append(False, row.labels != IGNORE)
    following = np.where(in_loss[1:], row.labels, np.append(row.inputs[1:], row.labels[-1]))
    tokens = np.append(row.inputs[0], following)
    edges = [0, *(np.flatnonzero(np.diff(in_loss)) + 1).tolist(), len(tokens)]
    parts = []
    for a, b in pairwise(edges):
        ends = np.flatnonzero(tokens[a:b] == tokenizer.end)
        pieces = (tokenizer.decode(piece.tolist()) for piece in np.split(tokens[a:b], ends))
        parts.append(SamplePart(END.join(pieces), bool(in_loss[a])))
    return [part for part in parts if part.text]


def continue_tokens(
    model: Module,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    pad: int,
    device: torch.device,
    seed: int | None,
) -> list[list[int]]:
    """Generate `count` tokens after each of `prompts`: greedy, or sampled if `seed` is given.

    Always `count` forward passes of one shape: ranks of a sharded model stay in step, and a
    compiled model compiles once. Collective if the model is sharded.
    """
    starts = torch.tensor([len(prompt) for prompt in prompts])
    shape = (len(prompts), int(starts.max()) + count)
    tokens = torch.full(shape, pad, dtype=torch.int64, device=device)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(list(prompt))
    rows = torch.arange(len(prompts))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with evaluating(model):
        for at in range(count):
            # Causal attention ignores the padding at later positions.
            logits = model(tokens)[rows, starts + at - 1].float().cpu()
            if generator is None:
                chosen = logits.argmax(-1)
            else:
                probabilities = (logits / TEMPERATURE).softmax(-1)
                chosen = torch.multinomial(probabilities, 1, generator=generator)[:, 0]
            tokens[rows, starts + at] = chosen.to(device)
    ends = zip(tokens.tolist(), starts.tolist(), strict=True)
    return [row[start : start + count] for row, start in ends]


PROMPT_TOKENS = 48
PREVIEW_TOKENS = 96
SEED = 0


def preview_text(model: Module, dataset: Dataset, device: torch.device) -> str:
    """A fixed prompt, "│" and the model's continuation. Collective if the model is sharded.

    The prompt is the start of the first validation document, continued by seeded sampling, or the
    first validation request, answered greedily. At most half of a row is prompt.
    """
    length, tokenizer = dataset.rules.length, dataset.tokenizer
    if dataset.text:
        row = dataset.text["val"].row(0)
        prompt, seed = row.inputs[: min(PROMPT_TOKENS, length // 2)], SEED
    else:
        prompt, seed = dataset.dialogues["val"].prompt(0)[-(length - length // 2) :], None
    count = min(PREVIEW_TOKENS, length - len(prompt))
    (written,) = continue_tokens(model, [prompt.tolist()], count, pad=tokenizer.pad, device=device, seed=seed)
    return f"{readable(prompt.tolist(), tokenizer)}│{readable(written, tokenizer)}"


def readable(tokens: list[int], tokenizer: Tokenizer) -> str:
    """Printable text of `tokens` up to the end token."""
    if tokenizer.end in tokens:
        tokens = tokens[: tokens.index(tokenizer.end)]
    return printable(tokenizer.decode(tokens))


SHOWN = 3
PREDICTED_TOKENS = 48
COLUMNS = ("source", "prompt", "target", "generated", "token accuracy")


def predict(model: Module, dataset: Dataset, device: torch.device) -> Predictions:
    """Greedy completions of rows spread over the validation split, beside the targets.

    One forward pass per token of the longest target. Collective.
    """
    samples, tokenizer = dataset.split("val"), dataset.tokenizer
    rows = [_prompt_and_target(dataset, index) for index in spread_positions(len(samples), SHOWN)]
    count = max(len(target) for _, _, target in rows)
    generated = continue_tokens(
        model, [prompt for _, prompt, _ in rows], count, pad=tokenizer.pad, device=device, seed=None
    )
    table: list[tuple[str | float, ...]] = []
    for (name, prompt, target), tokens in zip(rows, generated, strict=True):
        written = tokens[: len(target)]
        texts = [readable(part, tokenizer) for part in (prompt, target, written)]
        table.append((name, *texts, float(np.mean(np.array(target) == np.array(written)))))
    return Predictions(COLUMNS, table)


def _prompt_and_target(dataset: Dataset, index: int) -> tuple[str, list[int], list[int]]:
    """Name of a row, its prompt (cut at the start) and its target (cut at the end).

    At most half of a text row is prompt; the target of a request is its answer.
    """
    length = dataset.rules.length
    if dataset.text:
        row = dataset.text["val"].row(index)
        tokens = [*row.inputs.tolist(), int(row.labels[-1])]
        prompt = min(PROMPT_TOKENS, length // 2, len(tokens) - 1)
        end = prompt + min(PREDICTED_TOKENS, length - prompt)
        return row.name, tokens[:prompt], tokens[prompt:end]
    rows = dataset.dialogues["val"]
    target = rows.answer(index)[: min(PREDICTED_TOKENS, length // 2)].tolist()
    prompt_length = min(PROMPT_TOKENS, length - len(target))
    return rows.row(index).name, rows.prompt(index)[-prompt_length:].tolist(), target
