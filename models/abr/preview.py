"""What the model says of the first validation responses, for a person to read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from models.abr.dataset import Portion, collate
from models.abr.layout import CLASSES
from models.abr.responses import CLASS_NAMES
from models.common.chosen import few

RESPONSES = 64
"""Of the validation split, spread over it."""
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 66


@torch.no_grad()
def show(model: Module, portion: Portion, device: torch.device) -> str:
    """A response and its reconstruction, and which classes were taken for which. Collective.

    One forward pass, on every rank the same.
    """
    batch = collate(few(portion, RESPONSES))
    training = model.training
    model.eval()
    try:
        told = model(batch["signal"].to(device), batch["static"].to(device))
    finally:
        model.train(training)
    texts = [_traces(batch["signal"][0, 0], told["signal"][0, 0].float().cpu())]
    if "class" in told:
        texts.append(_confusion(batch["target"], told["class"].argmax(-1).cpu()))
    return "\n".join(texts)


def _traces(true: Tensor, told: Tensor) -> str:
    low, high = float(true.min()), float(true.max())
    rows = (("response", true), ("reconstructed", told))
    return "\n".join(f"{name:<14} {_bars(trace, low, high)}" for name, trace in rows)


def _bars(trace: Tensor, low: float, high: float) -> str:
    """`trace` as a line of blocks, `low` to `high`."""
    place = np.linspace(0, len(trace) - 1, WIDTH).astype(int)
    share = (trace.numpy()[place] - low) / max(high - low, 1e-9)
    return "".join(BARS[i] for i in (share * len(BARS)).astype(int).clip(0, len(BARS) - 1))


def _confusion(target: Tensor, told: Tensor) -> str:
    known = target >= 0
    counts = torch.bincount((target * CLASSES + told)[known], minlength=CLASSES**2)
    head = f"{'true, told →':<14} " + " ".join(f"{name:>13}" for name in CLASS_NAMES)
    rows = [
        f"{name:<14} " + " ".join(f"{count:>13}" for count in row)
        for name, row in zip(CLASS_NAMES, counts.view(CLASSES, CLASSES).tolist(), strict=True)
    ]
    return "\n".join([head, *rows])
