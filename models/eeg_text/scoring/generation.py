"""Sentences that the model writes, with no token of the true one given to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module

from models.base import Batch
from models.eeg_text.tokenizer import Tokenizer


def remembered(model: Module, batch: Batch, inputs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """What the encoder makes of the `inputs`, one below the other, and where they are valid.

    [input × batch, time / 4, width] and [input × batch, time]. Collective where the model is
    sharded and nothing was computed before.
    """
    valid = torch.cat([batch[f"{name}_mask"] for name in inputs])
    if f"{inputs[0]}_memory" in batch:
        return torch.cat([batch[f"{name}_memory"] for name in inputs]), valid
    return model(torch.cat([batch[name] for name in inputs]), valid), valid


@torch.no_grad()
def write(model: Module, memory: Tensor, valid: Tensor, steps: int, tokenizer: Tokenizer) -> Tensor:
    """The likeliest token each time, `steps` times, [batch, steps].

    Always `steps` forward passes over one shape, so that ranks that hold parts of the model stay
    in step and a compiled model is compiled once. Collective where the model is sharded.
    """
    shape = (memory.shape[0], steps)
    ids = torch.full(shape, tokenizer.pad, dtype=torch.int64, device=memory.device)
    ids[:, 0] = tokenizer.start
    written = torch.full_like(ids, tokenizer.pad)
    for at in range(steps):
        # What stands behind `at` does not matter: attention is causal.
        logits = model(None, valid, ids, memory=memory)[:, at].float()
        written[:, at] = logits.argmax(-1)
        if at + 1 < steps:
            ids[:, at + 1] = written[:, at]
    return written
