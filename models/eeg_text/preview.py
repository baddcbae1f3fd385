"""What the model writes of a few recordings, for a person to read."""

from __future__ import annotations

import torch
from torch.nn import Module

from models.base import Batch
from models.eeg_text.scoring.generation import remembered, write
from models.eeg_text.texts import Texts


@torch.no_grad()
def show(model: Module, batch: Batch, texts: Texts, device: torch.device) -> str:
    """For each sample the sentence that was read, and what is written of its EEG.

    Collective where the model is sharded.
    """
    was_training = model.training
    model.eval()
    written = sentences(model, batch, texts, device)
    model.train(was_training)
    lines = []
    for row, read in zip(written, batch["text"], strict=True):
        lines.append(f"read     {legible(read)}")
        lines.append(f"written  {row}")
    return "\n".join(lines)


def sentences(model: Module, batch: Batch, texts: Texts, device: torch.device) -> list[str]:
    """What is written of each sample of `batch`. Collective where the model is sharded."""
    placed = {name: x.to(device) for name, x in batch.items() if isinstance(x, torch.Tensor)}
    memory, valid = remembered(model, placed, ["eeg"])
    written = write(model, memory, valid, texts.steps, texts.tokenizer).cpu().tolist()
    return [legible(texts.tokenizer.decode(row)) for row in written]


def legible(text: str) -> str:
    """`text` without what could steer a terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
