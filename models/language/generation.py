"""Text that a model goes on with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Module

TEMPERATURE = 0.8


@torch.no_grad()
def continue_tokens(
    model: Module,
    prompts: Sequence[Sequence[int]],
    count: int,
    *,
    pad: int,
    device: torch.device,
    seed: int | None,
) -> list[list[int]]:
    """`count` tokens after each of `prompts`: the likeliest each time, or with `seed` drawn.

    Always `count` forward passes over one shape, so that ranks that hold parts of the model stay in
    step and a compiled model is compiled once. Collective where the model is sharded.
    """
    starts = torch.tensor([len(prompt) for prompt in prompts])
    shape = (len(prompts), int(starts.max()) + count)
    tokens = torch.full(shape, pad, dtype=torch.int64, device=device)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = torch.tensor(list(prompt))
    rows = torch.arange(len(prompts))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    for at in range(count):
        # What stands behind does not matter: attention is causal.
        logits = model(tokens)[rows, starts + at - 1].float().cpu()
        if generator is None:
            found = logits.argmax(-1)
        else:
            shares = (logits / TEMPERATURE).softmax(-1)
            found = torch.multinomial(shares, 1, generator=generator)[:, 0]
        tokens[rows, starts + at] = found.to(device)
    model.train(was_training)
    ends = zip(tokens.tolist(), starts.tolist(), strict=True)
    return [row[start : start + count] for row, start in ends]
