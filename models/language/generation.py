"""Text that a model goes on with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import Module

TEMPERATURE = 0.8


@torch.no_grad()
def continue_tokens(
    model: Module,
    prompt: Sequence[int],
    count: int,
    *,
    pad: int,
    device: torch.device,
    seed: int | None,
) -> list[int]:
    """`count` tokens after `prompt`: the likeliest each time, or with `seed` drawn.

    Always `count` forward passes over one shape, so that ranks that hold parts of the model stay in
    step and a compiled model is compiled once. Collective where the model is sharded.
    """
    start = len(prompt)
    tokens = torch.full((1, start + count), pad, dtype=torch.int64, device=device)
    tokens[0, :start] = torch.tensor(list(prompt))
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    was_training = model.training
    model.eval()
    for at in range(start, start + count):
        # What stands behind `at` does not matter: attention is causal.
        logits = model(tokens)[0, at - 1].float().cpu()
        if generator is None:
            tokens[0, at] = logits.argmax()
        else:
            shares = (logits / TEMPERATURE).softmax(-1)
            tokens[0, at] = torch.multinomial(shares, 1, generator=generator)[0]
    model.train(was_training)
    return tokens[0, start:].tolist()
